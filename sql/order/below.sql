-- Builds that have not succeeded, with all that they need and that has not either, and how urgent each is for its own sake: by an operator,
-- else by the jobs of evaluations that still want it.
-- $1 build ids
with recursive below (id) as (
    select id from builds where id = any ($1::bigint[]) and state <> 'succeeded'
  union
    select n.id
    from below
    cross join lateral (select e.dependency_id from build_dependencies e where e.build_id = below.id offset 0) e
    cross join lateral (select b.id from builds b where b.id = e.dependency_id and b.state <> 'succeeded' offset 0) n
)
select b.id as build_id, b.priority, b.emergency, b.expected_ms, b.remaining_path, b.status < 0 as unfinished,
       coalesce(b.priority_asked, wanted.priority, 99)::smallint as own_priority,
       b.emergency_asked or coalesce(wanted.emergency, false) as own_emergency
from below
cross join lateral (select * from builds b where b.id = below.id offset 0) b
cross join lateral (
    select min(10 * s.priority + j.priority) as priority, bool_or(e.emergency) as emergency
    from (select evaluation_id, priority from jobs j where j.build_id = below.id offset 0) j
    join evaluations e on e.id = j.evaluation_id and e.canceled_at is null
    join specifications s on s.id = e.specification_id
) wanted
