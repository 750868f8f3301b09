-- What specifications have used by the word of all other servers, up or not, in slot-seconds that count half after $1 seconds each.
-- $2 server id
select specification_id, sum(slot_seconds * power(0.5, extract(epoch from now() - at)::double precision / $1::double precision)) as slot_seconds
from specification_usage
where server_id <> $2
group by specification_id
