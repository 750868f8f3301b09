-- The unfinished builds that need these, with how urgent they are and how long the path is that begins with each.
-- $1 build ids
select d.dependency_id, b.id as build_id, b.priority, b.emergency, b.remaining_path
from unnest($1::bigint[]) as asked (id)
cross join lateral (
    select e.dependency_id, e.build_id from build_dependencies e where e.dependency_id = asked.id offset 0
) d
cross join lateral (
    select b.id, b.priority, b.emergency, b.remaining_path from builds b where b.id = d.build_id and b.status < 0 offset 0
) b
