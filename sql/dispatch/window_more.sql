-- What follows in each lane on the last build that a refill showed: at most $1 builds each; and where $2 is not null, those that have
-- waited for so many seconds, the oldest of each lane. What comes before, the server knows. So nothing is read twice, nor are the
-- entries of builds that have been given out, which stay in the index as long as anybody has an old snapshot.
-- $3 lanes, $4 urgencies, $5 remaining paths, $6 builds (parallel): the last ones. The three parts of a lane follow one another in its order,
-- and are read until there are enough. The first says that the path is equal in two halves: else the planner would take the primary key,
-- which has builds in the order of their id too, and walk through those of other lanes.
select b.id as build_id, b.lane_id, b.other_lanes, b.urgency, b.remaining_path, b.expected_ms,
       coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms
from unnest($3::integer[], $4::smallint[], $5::bigint[], $6::bigint[]) as last (lane_id, urgency, remaining_path, id)
cross join lateral (
    (select b.*
     from (
        (select b.id, b.lane_id, b.other_lanes, b.urgency, b.remaining_path, b.expected_ms, b.ready_at
         from builds b
         where b.lane_id = last.lane_id and b.phase = 'ready' and b.urgency = last.urgency
           and b.remaining_path <= last.remaining_path and b.remaining_path >= last.remaining_path and b.id > last.id
         order by b.remaining_path desc, b.id
         limit $1)
      union all
        (select b.id, b.lane_id, b.other_lanes, b.urgency, b.remaining_path, b.expected_ms, b.ready_at
         from builds b
         where b.lane_id = last.lane_id and b.phase = 'ready' and b.urgency = last.urgency and b.remaining_path < last.remaining_path
         order by b.remaining_path desc, b.id
         limit $1)
      union all
        (select b.id, b.lane_id, b.other_lanes, b.urgency, b.remaining_path, b.expected_ms, b.ready_at
         from builds b
         where b.lane_id = last.lane_id and b.phase = 'ready' and b.urgency > last.urgency
         order by b.urgency, b.remaining_path desc, b.id
         limit $1)
     ) b
     limit $1)
  union all
    (select b.id, b.lane_id, b.other_lanes, b.urgency, b.remaining_path, b.expected_ms, b.ready_at
     from builds b
     where b.lane_id = last.lane_id and b.phase = 'ready' and b.ready_at <= now() - make_interval(secs => $2)
     order by b.ready_at, b.id
     limit $1 / 8)
) b
