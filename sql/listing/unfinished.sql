-- Builds that wait or are under way.
-- $1 states, $2 specification, $3 system, $4 worker, $5 name (like), each null for any; $6 limit; $7 how many are looked at;
-- $8 phases
with candidates as materialized (
    (select id, id as place from builds where phase = 'open' and 'open' = any ($8::text[]) limit $7)
  union all
    (select id, id from builds where phase = 'waiting' and 'waiting' = any ($8::text[]) order by id desc limit $7)
  union all
    (select id, id from builds where phase = 'deferred' and 'deferred' = any ($8::text[]) limit $7)
  union all
    (select id, id from builds where phase = 'ready' and 'ready' = any ($8::text[]) limit $7)
), found as (
    select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at, s.name as specification, w.name as worker, c.place
    from candidates c
    cross join lateral (select * from builds where builds.id = c.id limit 1) b
    join lanes l on l.id = b.lane_id
    join specifications s on s.id = l.specification_id
    left join lateral (select worker_id from attempts where attempts.id = b.attempt_id limit 1) a on true
    left join workers w on w.id = a.worker_id
    where ($1::text[] is null or b.state = any ($1)) and ($2::text is null or s.name = $2)
      and ($3::text is null or b.system = $3) and ($4::text is null or w.name = $4)
      and ($5::text is null or b.name like $5)
    order by c.place desc
    limit $6
)
select n.looked, f.*
from (select count(*) as looked from candidates) n
left join found f on true
order by f.place desc
