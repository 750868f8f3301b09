-- Cancels everything that needs one of these builds and has not begun, through all levels: it would wait for ever.
-- $1 build ids
with recursive down (build_id, root) as (
    select d.build_id, d.dependency_id
    from build_dependencies d
    where d.dependency_id = any ($1::bigint[])
  union
    select d.build_id, down.root
    from build_dependencies d
    join down on d.dependency_id = down.build_id
), doomed as (
    select build_id, min(root) as root from down group by build_id
), locked as (
    select b.id
    from builds b
    where b.id in (select build_id from doomed)
      and b.state in ('staged', 'held', 'waiting', 'deferred', 'ready')
    order by b.id
    for no key update
)
update builds b
set state = 'canceled', failed_build_id = doomed.root, started_at = now(), finished_at = now(), not_before = null
from doomed
where b.id = doomed.build_id and b.id in (select id from locked)
  and b.state in ('staged', 'held', 'waiting', 'deferred', 'ready')
returning b.id as build_id
