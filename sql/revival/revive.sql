-- Final builds begin anew, in a new generation. Locked in the order of the id.
-- $1 build ids
with locked as (
    select id from builds where id = any ($1::bigint[]) order by id for no key update
)
update builds b
set state = case when needs.unmet = 0 then 'ready' else 'waiting' end, unmet = needs.unmet, generation = b.generation + 1,
    farm_faults = 0, attempt_id = null, failed_build_id = null, not_before = null, started_at = null, finished_at = null,
    cancel_requested_at = null, collected_at = null, ready_at = case when needs.unmet = 0 then now() end
from locked
cross join lateral (
    select count(*)::integer as unmet
    from build_dependencies d
    join builds n on n.id = d.dependency_id
    where d.build_id = locked.id and (n.state <> 'succeeded' or n.collected_at is not null)
) needs
where b.id = locked.id
  and (b.state in ('failed', 'failed_other', 'failed_dependency', 'canceled') or b.state = 'succeeded' and b.collected_at is not null)
returning b.id as build_id, b.state, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms,
          coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms
