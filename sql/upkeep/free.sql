-- Such builds are ready again.
-- $1 build ids
with locked as (
    select id from builds where id = any ($1::bigint[]) order by id for no key update
)
update builds b
set state = 'ready', attempt_id = null, cancel_requested_at = null
from locked
where b.id = locked.id and b.state in ('assigned', 'running', 'built', 'fetching')
  and not exists (select from attempts a where a.id = b.attempt_id and a.ended_at is null)
returning b.id as build_id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms,
          coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms
