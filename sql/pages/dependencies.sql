-- What build $1 needs, what has not succeeded first.
select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at
  from build_dependencies e
  join builds b on b.id = e.dependency_id
 where e.build_id = $1
 order by b.status = 0, b.id
 limit $2;
