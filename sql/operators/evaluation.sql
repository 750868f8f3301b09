-- An evaluation, and the newest of its specification. Held until the transaction ends.
select e.id, e.status, s.name as specification, s.enabled,
       (select n.id from evaluations n where n.specification_id = e.specification_id order by n.id desc limit 1) as newest
from evaluations e
join specifications s on s.id = e.specification_id
where e.id = $1
for no key update of e
