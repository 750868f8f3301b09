-- The builders have begun.
-- $1 attempt ids, $2 milliseconds spent on inputs (parallel), $3 epoch
-- Epoch and end are compared in ways that no index serves: a plan that begins with all open attempts would be quadratic.
with begun as (
    update attempts a
    set started_at = now(), inputs_ms = s.inputs_ms
    from unnest($1::bigint[], $2::bigint[]) as s (id, inputs_ms)
    where a.id = any (array[s.id]) and a.epoch + 0 = $3 and coalesce(a.ended_at, 'infinity') = 'infinity' and a.started_at is null
    returning a.id, a.build_id
)
update builds b
set state = 'running', started_at = now()
from begun
where b.id = any (array[begun.build_id]) and b.attempt_id = begun.id and b.state = 'assigned'
