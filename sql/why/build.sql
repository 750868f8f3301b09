-- All that a build itself tells of why it is not running.
-- $1 build id
select b.id as build_id, b.name, b.system, b.state, b.urgency, b.emergency, b.unmet, b.not_before, b.farm_faults, b.path_step,
       b.ready_at, b.created_at, b.cancel_requested_at is not null as stopping,
       b.failed_build_id, f.name as failed_build_name, f.state as failed_build_state,
       l.store_directory, l.features, l.specification_id, s.name as specification,
       a.id as attempt_id, a.assigned_at, a.started_at, a.class, a.message, w.name as worker,
       extract(epoch from now() - a.assigned_at)::double precision as runs_for
from builds b
join lanes l on l.id = b.lane_id
join specifications s on s.id = l.specification_id
left join builds f on f.id = b.failed_build_id
left join attempts a on a.id = b.attempt_id
left join workers w on w.id = a.worker_id
where b.id = $1
