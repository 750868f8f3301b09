-- Deferred builds whose time has come. None has to wait for longer than $1 seconds, the longest delay: one that seems to was deferred
-- before the clock was set back, and is due.
with due as (
    select id from builds
    where phase = 'deferred' and (not_before <= now() or not_before > now() + make_interval(secs => $1))
    order by id for update
)
update builds b
set state = 'ready', not_before = null
from due
where b.id = due.id
returning b.id as build_id, b.lane_id, b.priority, b.remaining_path
