-- How the jobs of builds that have just become final compare with the last final result of the same job.
-- $1 build ids
with now_final as (
    select j.evaluation_id, j.name, b.status, (
        select pb.status
        from jobs pj
        join evaluations pe on pe.id = pj.evaluation_id
        join builds pb on pb.id = pj.build_id
        where pj.name = j.name and pj.evaluation_id < j.evaluation_id
          and pe.specification_id = e.specification_id and pb.id <> b.id and pb.status >= 0
        order by pj.evaluation_id desc
        limit 1
    ) as earlier
    from jobs j
    join builds b on b.id = j.build_id
    join evaluations e on e.id = j.evaluation_id
    where j.build_id = any ($1::bigint[]) and b.status >= 0
)
update jobs j
set weather = case
        when f.earlier is null then -1
        when f.status = 0 then case when f.earlier = 0 then 2 else 0 end
        else case when f.earlier = 0 then 1 else 3 end
    end
from now_final f
where j.evaluation_id = f.evaluation_id and j.name = f.name
