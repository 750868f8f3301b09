-- The builds of the last ten evaluations of specification $2 that ended, newest evaluation first; $3 is a system (null: any).
select b.id
  from (select j.build_id, max(j.evaluation_id) as evaluation_id
          from (select e.id
                  from evaluations e
                 where e.specification_id = (select id from specifications where name = $2)
                 order by e.id desc limit 10) e
          join jobs j on j.evaluation_id = e.id
         group by j.build_id) j
  join builds b on b.id = j.build_id
 where b.status >= 0 and ($3::text is null or b.system = $3)
 order by j.evaluation_id desc, b.finished_at desc, b.id desc
 limit $1;
