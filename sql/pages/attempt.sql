-- Where the log of attempt $1 is, and what it is the log of.
select a.id, a.build_id, a.number, a.kind, a.generation, w.name as worker, w.machine, a.assigned_at, a.started_at, a.built_at, a.ended_at,
       a.class, a.exit_status, a.message, a.origin, a.inputs_ms, a.build_ms, a.peak_memory, a.log_path, a.log_bytes,
       a.log_complete, a.log_expired_at, a.fetch_tries, a.fetch_error,
       b.name as build_name, d.path as derivation, v.publish_url
  from attempts a
  join workers w on w.id = a.worker_id
  join builds b on b.id = a.build_id
  left join derivations d on d.id = a.derivation_id
  left join servers v on v.id = a.log_server_id
 where a.id = $1;
