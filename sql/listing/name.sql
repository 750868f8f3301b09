-- Builds whose name begins so, by the names of their derivations (derivations_name).
-- $1 states, $2 specification, $3 system, $4 worker, $5 name (like), each null for any; $6 limit; $7 how many are looked at;
-- $8 the beginning
with candidates as materialized (
    select build_id as id
    from derivations
    where derivation_name(path) ~>=~ $8 and derivation_name(path) ~<~ ($8 || chr(1114111))
    limit $7
), found as (
    select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at, s.name as specification, w.name as worker, c.id as place
    from (select distinct id from candidates) c
    cross join lateral (select * from builds where builds.id = c.id limit 1) b
    join lanes l on l.id = b.lane_id
    join specifications s on s.id = l.specification_id
    left join lateral (select worker_id from attempts where attempts.id = b.attempt_id limit 1) a on true
    left join workers w on w.id = a.worker_id
    where ($1::text[] is null or b.state = any ($1)) and ($2::text is null or s.name = $2)
      and ($3::text is null or b.system = $3) and ($4::text is null or w.name = $4)
      and ($5::text is null or b.name like $5)
    order by c.id desc
    limit $6
)
select n.looked, f.*
from (select count(*) as looked from candidates) n
left join found f on true
order by f.place desc
