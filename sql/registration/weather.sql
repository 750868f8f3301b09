-- Jobs whose build was final before: how it compares with the last final result of the same job.
with settled as (
    select j.name, b.status, (
        select pb.status
        from jobs pj
        join evaluations pe on pe.id = pj.evaluation_id
        join builds pb on pb.id = pj.build_id
        where pj.name = j.name and pj.evaluation_id < j.evaluation_id
          and pe.specification_id = e.specification_id and pb.status >= 0
        order by pj.evaluation_id desc
        limit 1
    ) as earlier
    from evaluations e
    join jobs j on j.evaluation_id = e.id
    join builds b on b.id = j.build_id
    where e.id = $1 and b.status >= 0
), published_before as (
    -- Jobs of evaluations that began later, and were published first, have an earlier one now.
    update jobs j
    set repeats = true
    from evaluations own
    join evaluations e on e.specification_id = own.specification_id and e.id > own.id
    join jobs n on n.evaluation_id = own.id
    where own.id = $1 and j.evaluation_id = e.id and j.name = n.name and not j.repeats
)
update jobs j
set weather = case
        when s.earlier is null then -1
        when s.status = 0 then case when s.earlier = 0 then 2 else 0 end
        else case when s.earlier = 0 then 1 else 3 end
    end
from settled s
where j.evaluation_id = $1 and j.name = s.name
