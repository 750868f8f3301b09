-- The build is that attempt's again, as if it had not been given up.
-- $1 attempt id, $2 whether giving it up had counted as the farm's fault
update builds b
set state = case when a.started_at is null then 'assigned' else 'running' end, attempt_id = a.id,
    started_at = a.started_at, not_before = null, farm_faults = greatest(0, b.farm_faults - $2::boolean::integer)
from attempts a
where a.id = $1 and b.id = a.build_id and b.state in ('deferred', 'ready', 'assigned', 'running')
