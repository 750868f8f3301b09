-- $1 the end of the last build that is known, $2 its id
update durations_known set finished_at = $1, build_id = $2
