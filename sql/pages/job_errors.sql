-- The jobs of evaluation $1 that gave no build, by name, and how many they are in all.
select name, message, count(*) over () as total
  from job_errors
 where evaluation_id = $1
 order by name
 limit $2;
