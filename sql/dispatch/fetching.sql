-- The outputs of these attempts are under way.
-- $1 attempt ids, $2 epoch
-- Epoch and end are compared in ways that no index serves: a plan that begins with all open attempts would be quadratic.
update builds b
set state = 'fetching'
from attempts a
where a.id = any ($1::bigint[]) and a.epoch + 0 = $2 and coalesce(a.ended_at, 'infinity') = 'infinity'
  and b.id = a.build_id and b.attempt_id = a.id and b.state = 'built'
