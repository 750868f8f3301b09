-- What the JSON API tells of some builds. The job is that of evaluation $2, or (null) the first that wanted the build; a dependency has
-- no job, but an evaluation that wanted it first. `+ 0` keeps
-- the planner on jobs (build_id).
select b.id, b.name, b.system, b.status, b.priority, b.created_at, b.started_at, b.finished_at,
       d.path as derivation, coalesce(js.name, s.name) as specification,
       coalesce(j.evaluation_id, b.evaluation_id) as evaluation_id, j.name as job, j.weather
  from builds b
  join lanes l on l.id = b.lane_id
  join specifications s on s.id = l.specification_id
  left join derivations d on d.id = b.derivation_id
  left join lateral (
       select j.evaluation_id, j.name, j.weather
         from jobs j
        where j.build_id = b.id and ($2::bigint is null or j.evaluation_id = $2)
        order by j.evaluation_id + 0, j.name
        limit 1) j on true
  left join evaluations je on je.id = j.evaluation_id
  left join specifications js on js.id = je.specification_id
 where b.id = any($1);
