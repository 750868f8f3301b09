-- Jobs of evaluation $1 by name, after name $2, that contain $5 in their name, in one of the states $3 and of the weather $4
-- (null: any). Walks jobs (evaluation_id, name).
select j.name as job, j.weather, b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at
  from jobs j
  join builds b on b.id = j.build_id
 where j.evaluation_id = $1
   and j.name > $2
   and ($3::smallint[] is null or b.status = any($3))
   and ($4::smallint is null or j.weather = $4)
   and ($5::text is null or position($5 in j.name) > 0)
 order by j.name
 limit $6;
