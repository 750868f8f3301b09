-- The unfinished builds that these need.
-- $1 build ids
select distinct n.id as build_id
from unnest($1::bigint[]) as asked (id)
cross join lateral (select e.dependency_id from build_dependencies e where e.build_id = asked.id offset 0) e
cross join lateral (select b.id from builds b where b.id = e.dependency_id and b.status < 0 offset 0) n
