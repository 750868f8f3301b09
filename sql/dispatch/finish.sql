-- The workers say that these succeeded, and what they gave is in the farm's cache by now, checked and durable: built and succeeded
-- in one step.
-- $1 attempt ids, $2 origins, $3 inputs_ms, $4 build_ms, $5 peak memory, $6 log bytes, $7 exit statuses (parallel), $8 epoch
-- Epoch and end are compared in ways that no index serves: a plan that begins with all open attempts would be quadratic.
with ended as (
    update attempts a
    set started_at = coalesce(a.started_at, now()), built_at = coalesce(a.built_at, now()), ended_at = now(), class = 'succeeded',
        origin = f.origin, inputs_ms = f.inputs_ms, build_ms = f.build_ms, peak_memory = nullif(f.peak_memory, 0),
        log_bytes = f.log_bytes, exit_status = f.exit_status
    from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::integer[])
        as f (id, origin, inputs_ms, build_ms, peak_memory, log_bytes, exit_status)
    where a.id = any (array[f.id]) and a.epoch + 0 = $8 and coalesce(a.ended_at, 'infinity') = 'infinity'
    returning a.id, a.build_id
)
update builds b
set state = 'succeeded', started_at = coalesce(b.started_at, now()), finished_at = now(), failed_build_id = null
from ended
where b.id = any (array[ended.build_id]) and b.attempt_id = ended.id and b.state in ('assigned', 'running', 'built', 'fetching')
returning b.id as build_id, b.attempt_id
