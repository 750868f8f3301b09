-- Whose logs they are and where they go. Workers that were removed have none any more.
-- $1 attempt ids, $2 server id
select a.id, w.public_key, a.log_path, a.log_complete or a.log_expired_at is not null as log_complete,
       a.log_server_id is distinct from $2 as elsewhere
from unnest($1::bigint[]) as wanted (id)
join attempts a on a.id = any (array[wanted.id])
join workers w on w.id = any (array[a.worker_id]) and w.revoked_at is null
