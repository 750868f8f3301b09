-- What specifications have used lately, in slot-seconds that count half after $1 seconds each; of attempts that have ended.
select l.specification_id,
       sum(extract(epoch from a.over_at - a.assigned_at)::double precision
           * power(0.5, extract(epoch from now() - a.over_at)::double precision / $1::double precision)) as slot_seconds
from (select lane_id, assigned_at, coalesce(built_at, ended_at) as over_at
      from attempts
      where assigned_at > now() - make_interval(secs => 6 * $1::double precision) and ended_at is not null and lane_id is not null) a
join lanes l on l.id = a.lane_id
group by l.specification_id
