-- The jobs that want build $1, newest evaluation first. `+ 0` keeps the planner from walking the primary key of jobs in that order
-- instead of jobs (build_id).
select j.evaluation_id, j.name as job, j.weather, s.name as specification
  from jobs j
  join evaluations e on e.id = j.evaluation_id
  join specifications s on s.id = e.specification_id
 where j.build_id = $1
 order by j.evaluation_id + 0 desc, j.name
 limit $2;
