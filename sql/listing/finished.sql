-- The builds that ended last.
-- $1 states, $2 specification, $3 system, $4 worker, $5 name (like), each null for any; $6 limit; $7 how many are looked at;
-- $8 nothing
with candidates as materialized (
    select id, row_number() over (order by finished_at, id) as place
    from (select id, finished_at from builds where finished_at is not null and $8::bigint is null
          order by finished_at desc, id desc limit $7) last
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
