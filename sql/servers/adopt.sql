-- Attempts of older starts of a server become the newest start's.
-- $1 server id, $2 epoch
update attempts a
set epoch = $2
from server_epochs e
where e.server_id = $1 and e.epoch < $2 and a.epoch = e.epoch and a.ended_at is null
returning a.id as attempt_id
