-- What every worker has in hand, by attempts_open; `+ 0` keeps the planner from walking the primary key instead.
select a.id as attempt_id, a.worker_id, a.number, a.kind, a.assigned_at, a.started_at, a.built_at, a.log_path,
       b.id, b.name, b.system, b.state
  from attempts a
  join builds b on b.id = a.build_id
 where a.ended_at is null
 order by a.id + 0
 limit $1;
