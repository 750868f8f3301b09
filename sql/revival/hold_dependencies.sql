-- What these builds need and is unfinished holds still until the transaction ends.
-- $1 build ids
select b.id
from builds b
where b.id in (select dependency_id from build_dependencies where build_id = any ($1::bigint[])) and b.status < 0
order by b.id
for share
