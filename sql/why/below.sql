-- The unfinished builds that a build needs, directly or not, up to $2 of them.
-- $1 build id
with recursive below (id) as (
    select $1::bigint
  union
    select n.id
    from below
    cross join lateral (select e.dependency_id from build_dependencies e where e.build_id = below.id offset 0) e
    cross join lateral (select b.id from builds b where b.id = e.dependency_id and b.status < 0 offset 0) n
)
select b.id as build_id, b.expected_ms,
       case when b.state in ('assigned', 'running') then (extract(epoch from now() - a.assigned_at) * 1000)::bigint end as elapsed_ms,
       b.state in ('built', 'fetching') as built,
       array(select e.dependency_id from build_dependencies e where e.build_id = b.id) as needs
from (select id from below limit $2) n
cross join lateral (select * from builds b where b.id = n.id offset 0) b
left join attempts a on a.id = b.attempt_id
