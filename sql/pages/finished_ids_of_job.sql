-- The builds of the jobs named $2 that ended, newest evaluation first; $3 is a specification, $4 a system (null: any).
-- Looks through the last 10000 jobs of that name, by jobs (name, evaluation_id desc).
select b.id
  from (select j.build_id, max(j.evaluation_id) as evaluation_id
          from (select build_id, evaluation_id from jobs
                 where name = $2 order by evaluation_id desc limit 10000) j
          join evaluations e on e.id = j.evaluation_id
          join specifications s on s.id = e.specification_id
         where $3::text is null or s.name = $3
         group by j.build_id) j
  join builds b on b.id = j.build_id
 where b.status >= 0 and ($4::text is null or b.system = $4)
 order by j.evaluation_id desc, b.id desc
 limit $1;
