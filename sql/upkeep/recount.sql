-- Counts again what builds wait for; their dependencies hold still. What needs something that has failed or been canceled is so, too.
-- $1 build ids
with locked as (
    select id from builds where id = any ($1::bigint[]) and status < 0 order by id for no key update
)
update builds b
set unmet = n.unmet,
    state = case when n.failed is not null then 'failed_dependency'
                 when n.canceled is not null then 'canceled'
                 when b.state = 'held' then 'held'
                 when n.unmet > 0 then 'waiting'
                 when b.state = 'deferred' then 'deferred'
                 else 'ready' end,
    ready_at = case when n.failed is null and n.canceled is null and n.unmet = 0 and b.state <> 'held' then coalesce(b.ready_at, now()) end,
    failed_build_id = coalesce(n.failed, n.canceled),
    started_at = case when n.failed is null and n.canceled is null then b.started_at else now() end,
    finished_at = case when n.failed is not null or n.canceled is not null then now() end
from locked
cross join lateral (
    select count(*) filter (where d.status <> 0)::integer as unmet,
           min(coalesce(d.failed_build_id, d.id)) filter (where d.status in (1, 2, 3)) as failed,
           min(coalesce(d.failed_build_id, d.id)) filter (where d.status = 4) as canceled
    from build_dependencies e
    join builds d on d.id = e.dependency_id
    where e.build_id = locked.id
) n
where b.id = locked.id and b.state in ('held', 'waiting', 'deferred', 'ready')
returning b.id as build_id, b.state, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms,
          coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms
