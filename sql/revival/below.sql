-- Final builds without success, and those that they failed by.
-- $1 build ids
with recursive below (id) as (
    select id
    from builds
    where id = any ($1::bigint[]) and state in ('failed', 'failed_other', 'failed_dependency', 'canceled')
  union
    select b.id
    from below
    join build_dependencies d on d.build_id = below.id
    join builds b on b.id = d.dependency_id and b.state in ('failed', 'failed_other', 'failed_dependency', 'canceled')
)
select id as build_id from below
