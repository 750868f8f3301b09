-- The builds of evaluation $2 that ended, last first; $3 is a system (null: any).
select b.id
  from (select distinct build_id from jobs where evaluation_id = $2) j
  join builds b on b.id = j.build_id
 where b.status >= 0 and ($3::text is null or b.system = $3)
 order by b.finished_at desc, b.id desc
 limit $1;
