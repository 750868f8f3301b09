-- Builds that a worker has, those it works on first. All of builds_open, which is of a size with the farm.
select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at, s.name as specification,
       w.name as worker, w.machine, a.id as attempt_id, a.number, a.assigned_at, a.log_path
  from builds b
  join lanes l on l.id = b.lane_id
  join specifications s on s.id = l.specification_id
  left join attempts a on a.id = b.attempt_id
  left join workers w on w.id = a.worker_id
 where b.phase = 'open'
 order by b.status desc, b.urgency, b.created_at, b.id
 limit $1;
