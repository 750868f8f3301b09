-- Builds that are said to have failed by what they need, although nothing of it has failed.
select b.id as build_id
from builds b
where b.state = 'failed_dependency' and not exists (
    select from build_dependencies e join builds d on d.id = e.dependency_id where e.build_id = b.id and d.status > 0
)
order by b.id
