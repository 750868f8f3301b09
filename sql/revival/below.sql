-- Final builds without success, or whose outputs were removed, and of those that they need the ones that stand so, too.
-- $1 build ids
with recursive below (id) as (
    select id
    from builds
    where id = any ($1::bigint[])
      and (state in ('failed', 'failed_other', 'failed_dependency', 'canceled') or state = 'succeeded' and collected_at is not null)
  union
    select b.id
    from below
    join build_dependencies d on d.build_id = below.id
    join builds b on b.id = d.dependency_id
      and (b.state in ('failed', 'failed_other', 'failed_dependency', 'canceled') or b.state = 'succeeded' and b.collected_at is not null)
)
select id as build_id from below
