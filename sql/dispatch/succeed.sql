-- The outputs of these attempts are in the farm's cache, checked and durable: their builds have succeeded.
-- $1 attempt ids, $2 epoch, $3 server id; $4 attempt ids, $5 paths, $6 nar hashes, $7 nar sizes of the outputs (parallel), as the
-- cache has them
-- Epoch and end are compared in ways that no index serves: a plan that begins with all open attempts would be quadratic.
with ended as (
    update attempts a
    set ended_at = now(), class = 'succeeded'
    where a.id = any ($1::bigint[]) and a.epoch + 0 = $2 and coalesce(a.ended_at, 'infinity') = 'infinity'
    returning a.id, a.build_id
), marked as (
    update attempt_outputs o
    set fetched_at = now()
    from ended
    where o.attempt_id = ended.id
), held as (
    -- The attempts as they were before this statement: the same ones as in `ended`, found by their key.
    update outputs o
    set nar_hash = f.nar_hash, nar_size = f.nar_size, server_id = $3
    from unnest($4::bigint[], $5::text[], $6::bytea[], $7::bigint[]) as f (attempt_id, path, nar_hash, nar_size)
    join attempts a on a.id = f.attempt_id
    where o.path = f.path and a.epoch + 0 = $2 and coalesce(a.ended_at, 'infinity') = 'infinity'
)
update builds b
set state = 'succeeded', finished_at = now(), failed_build_id = null
from ended
where b.id = ended.build_id and b.attempt_id = ended.id and b.state in ('assigned', 'running', 'built', 'fetching')
returning b.id as build_id, b.attempt_id
