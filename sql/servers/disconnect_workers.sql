-- Workers that were connected to older starts of a server are not connected any more.
-- $1 server id, $2 epoch
update workers w
set epoch = null
from server_epochs e
where e.server_id = $1 and e.epoch < $2 and w.epoch = e.epoch
