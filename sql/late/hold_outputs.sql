-- The outputs of an attempt are in the farm's cache, as the cache has them.
-- $1 attempt id, $2 server id, $3 paths, $4 nar hashes, $5 nar sizes (parallel)
with marked as (
    update attempt_outputs set fetched_at = now() where attempt_id = $1
)
update outputs o
set nar_hash = f.nar_hash, nar_size = f.nar_size, server_id = $2
from unnest($3::text[], $4::bytea[], $5::bigint[]) as f (path, nar_hash, nar_size)
where o.path = f.path
