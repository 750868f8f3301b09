-- The last $2 attempts of each of some workers, by attempts (worker_id, id desc). An equality would let the
-- planner walk the primary key in its place, past the attempts of all other workers.
select w.name as worker, b.id, b.name, b.system, b.state, a.id as attempt_id, a.number, a.kind, a.assigned_at, a.started_at, a.ended_at,
       a.class, a.message, a.build_ms, a.log_path
  from workers w
 cross join lateral (select a.* from attempts a
                      where a.worker_id between w.id and w.id
                      order by a.worker_id, a.id desc limit $2) a
  join builds b on b.id = a.build_id
 where w.id = any($1)
 order by a.id desc
 limit $2;
