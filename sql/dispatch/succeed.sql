-- The outputs of these attempts are in the farm's cache, checked and durable: their builds have succeeded.
-- $1 attempt ids, $2 epoch, $3 server id
with ended as (
    update attempts a
    set ended_at = now(), class = 'succeeded'
    where a.id = any ($1::bigint[]) and a.epoch = $2 and a.ended_at is null
    returning a.id, a.build_id
), fetched as (
    update attempt_outputs o
    set fetched_at = now()
    from ended
    where o.attempt_id = ended.id
    returning o.path, o.nar_hash, o.nar_size
), held as (
    update outputs o
    set nar_hash = fetched.nar_hash, nar_size = fetched.nar_size, server_id = $3
    from fetched
    where o.path = fetched.path
)
update builds b
set state = 'succeeded', finished_at = now(), failed_build_id = null
from ended
where b.id = ended.build_id and b.attempt_id = ended.id and b.state in ('assigned', 'running', 'built', 'fetching')
returning b.id as build_id, b.attempt_id
