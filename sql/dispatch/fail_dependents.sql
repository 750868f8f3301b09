-- Fails everything that needs one of these builds, at once and through all levels.
-- `offset 0` keeps the planner on the index by dependency: made while there are no edges, another plan reads all of them.
-- $1 build ids
with recursive down (build_id, root) as (
    select d.build_id, failed.id
    from unnest($1::bigint[]) as failed (id)
    cross join lateral (select e.build_id from build_dependencies e where e.dependency_id = failed.id offset 0) d
  union
    select d.build_id, down.root
    from down
    cross join lateral (select e.build_id from build_dependencies e where e.dependency_id = down.build_id offset 0) d
), doomed as (
    select build_id, min(root) as root from down group by build_id
), locked as (
    select b.id, doomed.root
    from doomed
    join builds b on b.id = any (array[doomed.build_id])
    where b.state in ('staged', 'held', 'waiting', 'deferred', 'ready')
    order by b.id + 0
    for no key update of b
)
update builds b
set state = 'failed_dependency', failed_build_id = locked.root, started_at = now(), finished_at = now(), not_before = null
from locked
where b.id = any (array[locked.id]) and b.state in ('staged', 'held', 'waiting', 'deferred', 'ready')
returning b.id as build_id
