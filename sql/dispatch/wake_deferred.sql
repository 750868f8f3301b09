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
returning b.id as build_id, b.lane_id, b.other_lanes, b.urgency, b.remaining_path, b.expected_ms,
          coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms
