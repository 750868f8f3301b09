-- How many jobs of each evaluation are in which state. Reads every job of the evaluations asked for.
select j.evaluation_id, b.status, count(*) as jobs, count(*) filter (where j.weather = 1) as new_failures
  from jobs j
  join builds b on b.id = j.build_id
 where j.evaluation_id = any($1)
 group by j.evaluation_id, b.status;
