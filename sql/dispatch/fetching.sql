-- The outputs of these attempts are under way.
-- $1 attempt ids, $2 epoch
update builds b
set state = 'fetching'
from attempts a
where a.id = any ($1::bigint[]) and a.epoch = $2 and a.ended_at is null
  and b.id = a.build_id and b.attempt_id = a.id and b.state = 'built'
