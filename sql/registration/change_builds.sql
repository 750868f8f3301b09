-- Builds that were there, or that stand otherwise than they were recorded. A revived one begins a new generation.
-- $1 ids, $2 states, $3 priorities, $4 unmet, $5 failed builds, $6 whether they are revived, $7 the derivation to build from now
-- on, if it is another, $8 milliseconds of the longest path, $9 milliseconds each should take, $10 whether before everything,
-- $11 seconds that derivation may take, $12 that it may be silent (parallel)
update builds b
set state = n.state, priority = n.priority, unmet = n.unmet, failed_build_id = n.failed_build_id,
    derivation_id = coalesce(n.derivation_id, b.derivation_id), timeout = coalesce(n.timeout, b.timeout),
    max_silent = coalesce(n.max_silent, b.max_silent), generation = b.generation + n.revived::integer,
    farm_faults = case when n.revived then 0 else b.farm_faults end,
    attempt_id = case when n.revived then null else b.attempt_id end,
    collected_at = case when n.revived then null else b.collected_at end,
    cancel_requested_at = case when n.revived then null else b.cancel_requested_at end,
    remaining_path = n.remaining_path, expected_ms = n.expected_ms, emergency = n.emergency,
    ready_at = case when n.state in ('ready', 'deferred') then case when n.revived then now() else coalesce(b.ready_at, now()) end
                    when n.revived or n.state = 'waiting' then null else b.ready_at end,
    not_before = case when n.state = 'deferred' then b.not_before end,
    started_at = case when n.revived then null else b.started_at end,
    finished_at = case when n.revived and n.state <> 'failed_dependency' then null
                       when n.state = 'failed_dependency' and (n.revived or b.state <> n.state) then now()
                       else b.finished_at end
from unnest($1::bigint[], $2::text[], $3::smallint[], $4::integer[], $5::bigint[], $6::boolean[], $7::bigint[], $8::bigint[], $9::bigint[],
            $10::boolean[], $11::integer[], $12::integer[])
    as n (id, state, priority, unmet, failed_build_id, revived, derivation_id, remaining_path, expected_ms, emergency, timeout,
          max_silent)
where b.id = n.id
