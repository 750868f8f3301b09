-- Deferred builds whose time has come. None has to wait for longer than $1 seconds, the longest delay: one that seems to was deferred
-- before the clock was set back, and is due. $2 classes of ends that were the farm's fault: each build shows where it had such.
with due as (
    select id from builds
    where phase = 'deferred' and (not_before <= now() or not_before > now() + make_interval(secs => $1))
    order by id for no key update
)
update builds b
set state = 'ready', not_before = null
from due
where b.id = due.id
returning b.id as build_id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms,
          coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms,
          case when b.farm_faults > 0 then array(
              select distinct a.worker_id from attempts a
              where a.build_id = b.id and a.generation = b.generation and a.class = any ($2::text[])) end as failed_on
