-- The workers say that these succeeded; the outputs are theirs until they are fetched.
-- $1 attempt ids, $2 origins, $3 inputs_ms, $4 build_ms, $5 peak memory, $6 log bytes, $7 exit statuses (parallel), $8 epoch
-- Epoch and end are compared in ways that no index serves: a plan that begins with all open attempts would be quadratic.
with done as (
    update attempts a
    set built_at = now(), started_at = coalesce(a.started_at, now()), origin = f.origin, inputs_ms = f.inputs_ms,
        build_ms = f.build_ms, peak_memory = nullif(f.peak_memory, 0), log_bytes = f.log_bytes,
        exit_status = f.exit_status
    from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::integer[])
        as f (id, origin, inputs_ms, build_ms, peak_memory, log_bytes, exit_status)
    where a.id = any (array[f.id]) and a.epoch + 0 = $8 and coalesce(a.ended_at, 'infinity') = 'infinity' and a.built_at is null
    returning a.id, a.build_id
), moved as (
    update builds b
    set state = 'built', started_at = coalesce(b.started_at, now())
    from done
    where b.id = any (array[done.build_id]) and b.attempt_id = done.id and b.state in ('assigned', 'running')
)
select id as attempt_id from done
