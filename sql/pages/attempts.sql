-- The attempts of build $1, newest first.
select a.id, a.build_id, a.number, a.kind, a.generation, w.name as worker, w.machine, a.assigned_at, a.started_at, a.built_at, a.ended_at,
       a.class, a.exit_status, a.message, a.origin, a.inputs_ms, a.build_ms, a.peak_memory, a.log_path, a.log_bytes,
       a.log_complete, a.log_expired_at, a.fetch_tries, a.fetch_error
  from attempts a
  join workers w on w.id = a.worker_id
 where a.build_id = $1
 order by a.number desc, a.id desc
 limit $2;
