-- The starts of other servers that are not over, how far each has counted, and how long it may stand still.
-- $1 server id
select e.epoch, e.beat, e.lease_ms, s.name
from server_epochs e
join servers s on s.id = e.server_id
where e.ended_at is null and e.server_id <> $1
