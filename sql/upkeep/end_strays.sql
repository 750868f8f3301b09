-- Such attempts are over.
-- $1 attempt ids
update attempts a
set ended_at = now(), class = 'superseded', message = 'its build spoke of another'
from builds b
where a.id = any ($1::bigint[]) and a.ended_at is null and b.id = a.build_id
  and (b.attempt_id is distinct from a.id or b.state not in ('assigned', 'running', 'built', 'fetching'))
