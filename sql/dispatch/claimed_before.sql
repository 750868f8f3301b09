-- Claims that were granted by a transaction whose end the server did not learn of.
-- $1 build ids, $2 worker ids, $3 sessions (parallel), $4 epoch
-- Epoch and end are compared in ways that no index serves: a plan that begins with all open attempts would be quadratic.
select a.id as attempt_id
from unnest($1::bigint[], $2::integer[], $3::bigint[]) as c (build_id, worker_id, session)
join attempts a on a.build_id = any (array[c.build_id]) and a.worker_id + 0 = c.worker_id and a.session = c.session
where a.epoch + 0 = $4 and coalesce(a.ended_at, 'infinity') = 'infinity'
