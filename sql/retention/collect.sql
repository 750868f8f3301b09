-- Builds whose outputs are about to be removed. One that has not succeeded, or that an unfinished build needs, is left as it is, and so
-- are outputs that another server has.
-- $1 paths, $2 the servers whose cache they are in
with going as (
    select distinct b.id
    from outputs o
    join builds b on b.id = o.build_id
    where o.path = any ($1::text[]) and (o.server_id = any ($2::integer[]) or o.server_id is null) and b.state = 'succeeded' and b.collected_at is null
      and not exists (
          select from build_dependencies d join builds n on n.id = d.build_id where d.dependency_id = b.id and n.status < 0
      )
)
update builds b set collected_at = now() from going where b.id = going.id
