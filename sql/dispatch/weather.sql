-- How the jobs of builds that have just become final compare with the last final result of the same job. Nothing is written where
-- there is none: unknown is what it says from the start; and a job that no earlier evaluation has is not looked for among them.
-- `offset 0` keeps the planner on keys: with statistics of a farm that has one evaluation it would read all jobs for each build.
-- $1 build ids
with now_final as (
    select j.evaluation_id, j.name,
           case when b.status = 0 then case when earlier.status = 0 then 2 else 0 end
                else case when earlier.status = 0 then 1 else 3 end end as weather
    from unnest($1::bigint[]) as asked (id)
    cross join lateral (select id, status from builds b where b.id = asked.id offset 0) b
    cross join lateral (select j.evaluation_id, j.name from jobs j where j.build_id = b.id and j.repeats offset 0) j
    cross join lateral (select e.specification_id from evaluations e where e.id = j.evaluation_id offset 0) e
    cross join lateral (
        select pb.status
        from (select pj.evaluation_id, pj.build_id from jobs pj
              where pj.name = j.name and pj.evaluation_id < j.evaluation_id
              order by pj.evaluation_id desc offset 0) pj
        cross join lateral (select pe.specification_id from evaluations pe where pe.id = pj.evaluation_id offset 0) pe
        cross join lateral (select pb.id, pb.status from builds pb where pb.id = pj.build_id offset 0) pb
        where pe.specification_id = e.specification_id and pb.id <> b.id and pb.status >= 0
        order by pj.evaluation_id desc
        limit 1
    ) earlier
    where b.status >= 0
)
update jobs j
set weather = f.weather
from now_final f
where j.evaluation_id = any (array[f.evaluation_id]) and j.name = any (array[f.name]) and j.weather <> f.weather
