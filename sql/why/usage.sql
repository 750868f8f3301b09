-- What specifications have used on all servers, in slot-seconds that count half after $2 seconds.
-- $1 specifications
select specification_id, sum(slot_seconds * power(0.5, extract(epoch from now() - at)::double precision / $2)) as slot_seconds
from specification_usage
where specification_id = any ($1::integer[])
group by specification_id
