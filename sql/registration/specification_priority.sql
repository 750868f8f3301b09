-- The evaluation that is to be published, if it is still open.
select s.id as specification_id, s.priority, e.emergency
from evaluations e
join specifications s on s.id = e.specification_id
where e.id = $1 and e.status = -1
for no key update of e
