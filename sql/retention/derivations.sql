-- Derivations that attempts at unfinished builds use, and those of the jobs of the last evaluation of each specification, which operators may
-- begin anew.
-- $1 true: the former only
select d.path from builds b join derivations d on d.id = b.derivation_id where b.status < 0
union
select d.path
from (select max(id) as id from evaluations where status = 0 group by specification_id) l
join jobs j on j.evaluation_id = l.id
join derivations d on d.id = j.derivation_id
where not $1
