-- A result that came late and changes nothing is kept with its attempt, once.
-- $1 attempt id, $2 what it said, $3 origin, $4 exit status, $5 inputs_ms, $6 build_ms, $7 peak memory, $8 log bytes
update attempts
set late = true, message = concat_ws('; ', nullif(message, ''), $2::text), origin = coalesce(origin, $3),
    exit_status = coalesce(exit_status, $4), inputs_ms = coalesce(inputs_ms, $5), build_ms = coalesce(build_ms, $6),
    peak_memory = coalesce(peak_memory, nullif($7::bigint, 0)), log_bytes = coalesce(log_bytes, $8)
where id = $1 and ended_at is not null and not late and built_at is null
