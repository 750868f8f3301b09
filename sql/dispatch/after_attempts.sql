-- What becomes of the builds whose attempts have just ended without success. One that an operator has canceled is tried no more.
-- $1 build ids, $2 attempt ids, $3 states, $4 seconds to wait (for deferred), $5 whether it counts as the farm's fault (parallel)
update builds b
set state = case when b.cancel_requested_at is not null and e.state in ('ready', 'deferred') then 'canceled' else e.state end,
    farm_faults = b.farm_faults + e.fault::integer,
    not_before = case when e.state = 'deferred' and b.cancel_requested_at is null
                      then now() + make_interval(secs => e.delay) end,
    finished_at = case when e.state in ('failed', 'failed_other') or b.cancel_requested_at is not null then now() end,
    started_at = case when e.state in ('failed', 'failed_other') or b.cancel_requested_at is not null
                      then coalesce(b.started_at, now()) end,
    cancel_requested_at = null
from unnest($1::bigint[], $2::bigint[], $3::text[], $4::double precision[], $5::boolean[])
    as e (build_id, attempt_id, state, delay, fault)
where b.id = any (array[e.build_id]) and b.attempt_id = e.attempt_id
  and b.state in ('assigned', 'running', 'built', 'fetching')
returning b.id as build_id, b.state, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms,
          coalesce((extract(epoch from now() - b.ready_at) * 1000)::bigint, 0) as age_ms
