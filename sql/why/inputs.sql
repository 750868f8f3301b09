-- What a build needs and has not got, what runs first.
-- $1 build id, $2 how many at most
select n.id as build_id, n.name, n.state
from build_dependencies e
join builds n on n.id = e.dependency_id and (n.state <> 'succeeded' or n.collected_at is not null)
where e.build_id = $1
order by n.phase is distinct from 'open', n.phase is distinct from 'ready', n.path_step desc, n.id
limit $2
