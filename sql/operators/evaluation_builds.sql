-- What an evaluation wants and is over without success, with what that needs.
-- $1 evaluation id
with recursive mine (id) as (
    select b.id
    from jobs j
    join builds b on b.id = j.build_id and b.state in ('failed', 'failed_other', 'failed_dependency', 'canceled')
    where j.evaluation_id = $1
  union
    select b.id
    from mine
    join build_dependencies d on d.build_id = mine.id
    join builds b on b.id = d.dependency_id and b.state in ('failed', 'failed_other', 'failed_dependency', 'canceled')
)
select id as build_id from mine order by id
