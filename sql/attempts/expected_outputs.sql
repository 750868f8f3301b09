-- What an attempt is to give.
-- $1 attempt id
select o.name, o.path
from attempts a
join outputs o on o.build_id = a.build_id
where a.id = $1
order by o.name
