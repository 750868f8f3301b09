-- $1 ids, $2 lanes, $3 derivations, $4 names, $5 systems, $6 priorities, $7 states, $8 unmet, $9 failed builds, $10 timeouts,
-- $11 silences, $13 milliseconds of the longest path, $14 milliseconds each should take, $15 whether before everything (parallel),
-- $12 the evaluation that wants them
insert into builds (id, lane_id, derivation_id, name, system, priority, state, unmet, failed_build_id, timeout, max_silent,
                    evaluation_id, finished_at, remaining_path, expected_ms, emergency, ready_at)
overriding system value
select n.id, n.lane_id, n.derivation_id, n.name, n.system, n.priority, n.state, n.unmet, n.failed_build_id, n.timeout,
       n.max_silent, $12, case when n.state = 'failed_dependency' then now() end, n.remaining_path, n.expected_ms, n.emergency,
       case when n.state = 'ready' then now() end
from unnest($1::bigint[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::integer[],
            $9::bigint[], $10::integer[], $11::integer[], $13::bigint[], $14::bigint[], $15::boolean[])
    as n (id, lane_id, derivation_id, name, system, priority, state, unmet, failed_build_id, timeout, max_silent, remaining_path,
          expected_ms, emergency)
