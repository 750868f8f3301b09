-- A build has succeeded by an attempt that had been given up.
-- $1 build id, $2 attempt id
update builds
set state = 'succeeded', attempt_id = $2, finished_at = now(), started_at = coalesce(started_at, now()), not_before = null,
    failed_build_id = null, cancel_requested_at = null
where id = $1 and status < 0
