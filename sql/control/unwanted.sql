-- The unfinished builds of an evaluation that no other evaluation wants, with what waits for them: neither directly, nor for
-- something else.
-- $1 evaluation id
with recursive mine (id) as (
    select b.id
    from jobs j
    join builds b on b.id = j.build_id and b.status < 0
    where j.evaluation_id = $1
  union
    select b.id
    from mine
    join build_dependencies d on d.build_id = mine.id
    join builds b on b.id = d.dependency_id and b.status < 0
), above (id) as (
    select id from mine
  union
    select b.id
    from above
    join build_dependencies d on d.dependency_id = above.id
    join builds b on b.id = d.build_id and b.status < 0
), wanted (id) as (
    select above.id
    from above
    where exists (
        select from jobs j
        join evaluations e on e.id = j.evaluation_id
        where j.build_id = above.id and j.evaluation_id <> $1 and e.canceled_at is null
    )
  union
    select b.id
    from wanted
    join build_dependencies d on d.build_id = wanted.id
    join builds b on b.id = d.dependency_id and b.status < 0
)
select id as build_id from above where id not in (select id from wanted)
