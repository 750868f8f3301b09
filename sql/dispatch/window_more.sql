-- What follows in each lane on the last build that a refill showed: at most $1 builds each; and where $2 is not null, those that have
-- waited for so many seconds, the oldest of each lane. What comes before, the server knows. So nothing is read twice, nor are the
-- entries of builds that have been given out, which stay in the index as long as anybody has an old snapshot.
-- $7 classes of ends that were the farm's fault: the few builds that had such show where.
-- $3 lanes, $4 urgencies, $5 steps of their paths, $6 builds (parallel): the last ones. The three parts of a lane follow one another in its order,
-- and are read until there are enough. The first says that the path is equal in two halves: else the planner would take the primary key,
-- which has builds in the order of their id too, and walk through those of other lanes.
select b.id as build_id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms,
       coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms,
       case when b.farm_faults > 0 then array(
           select distinct a.worker_id from attempts a
           where a.build_id = b.id and a.generation = b.generation and a.class = any ($7::text[])) end as failed_on
from unnest($3::integer[], $4::smallint[], $5::smallint[], $6::bigint[]) as last (lane_id, urgency, path_step, id)
cross join lateral (
    (select b.*
     from (
        (select b.id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms, b.ready_at, b.farm_faults, b.generation
         from builds b
         where b.lane_id = last.lane_id and b.phase = 'ready' and b.urgency = last.urgency
           and b.path_step <= last.path_step and b.path_step >= last.path_step and b.id > last.id
         order by b.path_step desc, b.id
         limit $1)
      union all
        (select b.id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms, b.ready_at, b.farm_faults, b.generation
         from builds b
         where b.lane_id = last.lane_id and b.phase = 'ready' and b.urgency = last.urgency and b.path_step < last.path_step
         order by b.path_step desc, b.id
         limit $1)
      union all
        (select b.id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms, b.ready_at, b.farm_faults, b.generation
         from builds b
         where b.lane_id = last.lane_id and b.phase = 'ready' and b.urgency > last.urgency
         order by b.urgency, b.path_step desc, b.id
         limit $1)
     ) b
     limit $1)
  union all
    (select b.id, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms, b.ready_at, b.farm_faults, b.generation
     from builds b
     where b.lane_id = last.lane_id and b.phase = 'ready' and b.ready_at <= now() - make_interval(secs => $2)
     order by b.ready_at, b.id
     limit $1 / 8)
) b
