-- What needs build $1. In the order of build_dependencies (dependency_id, build_id): some builds have tens of thousands.
select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at
  from (select build_id from build_dependencies
         where dependency_id = $1 order by build_id limit $2) e
  join builds b on b.id = e.build_id
 order by b.id;
