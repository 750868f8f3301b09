-- Those of these builds that cannot begin anew unless something that failed does so too.
-- $1 build ids
with recursive below (id, state) as (
    select id, state
    from builds
    where id = any ($1::bigint[]) and state in ('failed', 'failed_other', 'failed_dependency', 'canceled')
  union
    select b.id, b.state
    from below
    join build_dependencies d on d.build_id = below.id
    join builds b on b.id = d.dependency_id and b.state in ('failed', 'failed_other', 'failed_dependency', 'canceled')
), blocked (id) as (
    select id from below where state in ('failed', 'failed_other')
  union
    select below.id
    from blocked
    join build_dependencies d on d.dependency_id = blocked.id
    join below on below.id = d.build_id
)
select id as build_id from blocked where id = any ($1::bigint[])
