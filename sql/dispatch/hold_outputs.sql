-- What the farm's cache has of the outputs of builds that have just succeeded.
-- By their builds, as the claim finds them: paths lie in no order, and each would be looked up on a page of its own.
-- $1 server id; $2 build ids, $3 paths, $4 nar hashes, $5 nar sizes (parallel)
update outputs o
set nar_hash = f.nar_hash, nar_size = f.nar_size, server_id = $1
from unnest($2::bigint[], $3::text[], $4::bytea[], $5::bigint[]) as f (build_id, path, nar_hash, nar_size)
where o.build_id = any (array[f.build_id]) and o.path || '' = f.path
