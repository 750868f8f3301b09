-- Ends attempts that are still open and still this server's. Only those it names in its answer have any further effect.
-- $1 attempt ids, $2 classes, $3 exit statuses, $4 messages, $5 inputs_ms, $6 build_ms, $7 peak memory, $8 log bytes (parallel;
-- nulls leave what is there), $9 epoch
-- Epoch and end are compared in ways that no index serves: a plan that begins with all open attempts would be quadratic.
update attempts a
set ended_at = now(), class = e.class, exit_status = coalesce(e.exit_status, a.exit_status),
    message = coalesce(e.message, a.message), inputs_ms = coalesce(e.inputs_ms, a.inputs_ms),
    build_ms = coalesce(e.build_ms, a.build_ms), peak_memory = coalesce(nullif(e.peak_memory, 0), a.peak_memory),
    log_bytes = coalesce(e.log_bytes, a.log_bytes)
from unnest($1::bigint[], $2::text[], $3::integer[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
    as e (id, class, exit_status, message, inputs_ms, build_ms, peak_memory, log_bytes)
where a.id = any (array[e.id]) and a.epoch + 0 = $9 and coalesce(a.ended_at, 'infinity') = 'infinity'
returning a.id as attempt_id, a.build_id
