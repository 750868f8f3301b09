-- Those of these attempts that another server has taken over.
-- $1 attempt ids, $2 epoch
select id as attempt_id from attempts where id = any ($1::bigint[]) and epoch + 0 <> $2
