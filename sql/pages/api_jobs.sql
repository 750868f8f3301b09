-- All jobs of evaluation $1 for programs; $2 is a system, $3 are names (null: any).
select j.name, j.build_id, b.status
  from jobs j
  join builds b on b.id = j.build_id
 where j.evaluation_id = $1
   and ($2::text is null or b.system = $2)
   and ($3::text[] is null or j.name = any($3))
 order by j.name;
