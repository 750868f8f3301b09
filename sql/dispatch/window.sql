-- The head of every lane: at most $1 builds each, the most urgent first; of those that several specifications want, as many again,
-- whatever lane they were recorded in; and where $2 is not null, those that have waited for so many seconds, the oldest of each lane.
-- $3 classes of ends that were the farm's fault: the few builds that had such show where.
-- `offset 0` keeps the planner on keys, whatever the statistics say.
with heads (id) as (
    select r.id
    from lanes l
    cross join lateral (
        select b.id
        from builds b
        where b.lane_id = l.id and b.phase = 'ready'
        order by b.urgency, b.path_step desc, b.id
        limit $1
    ) r
  union
    (select b.id
     from builds b
     where b.phase = 'ready' and b.other_lanes is not null
     order by b.urgency, b.path_step desc, b.id
     limit $1)
  union
    select r.id
    from lanes l
    cross join lateral (
        select b.id
        from builds b
        where b.lane_id = l.id and b.phase = 'ready' and b.ready_at <= now() - make_interval(secs => $2)
        order by b.ready_at, b.id
        limit $1 / 8
    ) r
)
select b.id as build_id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms,
       coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms,
       case when b.farm_faults > 0 then array(
           select distinct a.worker_id from attempts a
           where a.build_id = b.id and a.generation = b.generation and a.class = any ($3::text[])) end as failed_on
from heads
cross join lateral (
    select b.id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms, b.ready_at,
           b.farm_faults, b.generation
    from builds b where b.id = heads.id offset 0
) b
