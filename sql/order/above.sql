-- The builds of notes, and through all levels what needs them and is unfinished, or has ended without success since: with them.
-- $1 note ids
with recursive above (id) as (
    select build_id from order_notes where id = any ($1::bigint[])
  union
    select b.id
    from above
    cross join lateral (select e.build_id from build_dependencies e where e.dependency_id = above.id offset 0) e
    cross join lateral (
        select b.id from builds b
        where b.id = e.build_id and b.state <> 'succeeded'
          and (b.status < 0 or b.finished_at >= (select min(noted_at) from order_notes where id = any ($1::bigint[])))
        offset 0
    ) b
)
select id as build_id from above
