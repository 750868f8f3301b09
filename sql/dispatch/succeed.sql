-- The outputs of these attempts are in the farm's cache, checked and durable: their builds have succeeded.
-- $1 attempt ids, $2 epoch
-- Epoch and end are compared in ways that no index serves: a plan that begins with all open attempts would be quadratic.
with ended as (
    update attempts a
    set ended_at = now(), class = 'succeeded'
    from unnest($1::bigint[]) as f (id)
    where a.id = any (array[f.id]) and a.epoch + 0 = $2 and coalesce(a.ended_at, 'infinity') = 'infinity'
    returning a.id, a.build_id
)
update builds b
set state = 'succeeded', finished_at = now(), failed_build_id = null
from ended
where b.id = any (array[ended.build_id]) and b.attempt_id = ended.id and b.state in ('assigned', 'running', 'built', 'fetching')
returning b.id as build_id, b.attempt_id
