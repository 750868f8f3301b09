-- These builds and all that they need, through all levels.
-- $1 build ids
with recursive below (id) as (
    select unnest($1::bigint[])
  union
    select d.dependency_id from below join build_dependencies d on d.build_id = below.id
)
select id as build_id from below
