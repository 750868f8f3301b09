-- What specifications have used on all servers, in slot-seconds that count half after $1 seconds.
select specification_id, sum(slot_seconds * power(0.5, extract(epoch from now() - at)::double precision / $1)) as slot_seconds
from specification_usage
group by specification_id
