-- What the farm's cache has of the outputs of builds that have just succeeded.
-- $1 server id; $2 paths, $3 nar hashes, $4 nar sizes (parallel)
update outputs o
set nar_hash = f.nar_hash, nar_size = f.nar_size, server_id = $1
from unnest($2::text[], $3::bytea[], $4::bigint[]) as f (path, nar_hash, nar_size)
where o.path = any (array[f.path])
