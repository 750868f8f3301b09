-- The next builds whose durations are not known yet, oldest first. What ended long ago tells little, and what ends just now may be
-- overtaken by what began to be recorded earlier.
-- $1 how many at most
select b.id as build_id, b.finished_at, b.name, b.system,
       case when b.state = 'succeeded' and a.origin = 'built' then a.build_ms end as build_ms
from durations_known k
cross join lateral (
    select b.id, b.finished_at, b.name, b.system, b.state, b.attempt_id
    from builds b
    where b.finished_at is not null and (b.finished_at, b.id) > (greatest(k.finished_at, now() - interval '30 days'), k.build_id)
      and b.finished_at < now() - interval '1 second'
    order by b.finished_at, b.id
    limit $1
) b
left join lateral (select a.origin, a.build_ms from attempts a where a.id = b.attempt_id offset 0) a on true
order by b.finished_at, b.id
