-- What had failed or been canceled only because of what these builds had been.
-- $1 build ids
with recursive above (id) as (
    select b.id
    from build_dependencies d
    join builds b on b.id = d.build_id
    where d.dependency_id = any ($1::bigint[])
      and (b.state = 'failed_dependency' or b.state = 'canceled' and b.failed_build_id is not null)
  union
    select b.id
    from above
    join build_dependencies d on d.dependency_id = above.id
    join builds b on b.id = d.build_id
    where b.state = 'failed_dependency' or b.state = 'canceled' and b.failed_build_id is not null
), blocked (id) as (
    select above.id
    from above
    where exists (
        select from build_dependencies d
        join builds n on n.id = d.dependency_id
        where d.build_id = above.id
          and (n.state in ('failed', 'failed_other', 'failed_dependency', 'canceled') or n.state = 'succeeded' and n.collected_at is not null)
          and n.id not in (select id from above) and n.id <> all ($1::bigint[])
    )
  union
    select above.id
    from blocked
    join build_dependencies d on d.dependency_id = blocked.id
    join above on above.id = d.build_id
)
select id as build_id from above where id not in (select id from blocked)
