-- Evaluations that something is still built for, or that still run, while a newer one of their specification is there.
-- $1 the specification's name; null: of any. `offset 0` keeps the planner from reading all jobs: what is unfinished leads to them.
with unfinished as materialized (
    select j.evaluation_id as id
    from builds b
    cross join lateral (select evaluation_id from jobs where build_id = b.id offset 0) j
    where b.phase in ('ready', 'deferred', 'waiting')
  union
    select j.evaluation_id
    from builds b
    cross join lateral (select evaluation_id from jobs where build_id = b.id offset 0) j
    where b.phase = 'open'
  union
    select id from evaluations where status = -1
)
select e.id, s.name as specification
from unfinished u
join evaluations e on e.id = u.id
join specifications s on s.id = e.specification_id
where e.canceled_at is null and ($1::text is null or s.name = $1)
  and e.id < (select n.id
              from evaluations n
              where n.specification_id = e.specification_id and n.status = 0 and n.canceled_at is null
              order by n.id desc
              limit 1)
order by e.id
