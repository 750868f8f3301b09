-- What specifications have used lately, in slot-seconds that count half after $1 seconds each; of attempts that have ended.
-- $2 the server that has given them out, or taken them over
-- Numbers of attempts grow with their time, so that the first that is recent enough is found by halving: a few dozen looks at the key,
-- where an index of times would be kept for this alone.
with recursive halves (low, high) as (
    select 0::bigint, (select coalesce(max(id), 0) + 1 from attempts)
  union all
    select case when middle.is_old then middle.id + 1 else h.low end, case when middle.is_old then h.high else middle.id end
    from halves h
    cross join lateral (
        select (h.low + h.high) / 2 as id,
               coalesce((select a.assigned_at <= now() - make_interval(secs => 6 * $1::double precision)
                         from attempts a where a.id >= (h.low + h.high) / 2 order by a.id limit 1), false) as is_old
    ) middle
    where h.low < h.high
)
select l.specification_id,
       sum(extract(epoch from a.over_at - a.assigned_at)::double precision
           * power(0.5, extract(epoch from now() - a.over_at)::double precision / $1::double precision)) as slot_seconds
from (select lane_id, epoch, assigned_at, coalesce(built_at, ended_at) as over_at
      from attempts
      where id >= (select max(low) from halves) and ended_at is not null and lane_id is not null) a
join lanes l on l.id = a.lane_id
join server_epochs e on e.epoch = a.epoch
where e.server_id = $2
group by l.specification_id
