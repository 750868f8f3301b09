-- These builds and all that needs them, through all levels.
-- $1 build ids
with recursive above (id) as (
    select unnest($1::bigint[])
  union
    select d.build_id from above join build_dependencies d on d.dependency_id = above.id
)
select id as build_id from above
