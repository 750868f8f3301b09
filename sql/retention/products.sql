-- The products that servers have, the outputs they were taken out of, and how firmly they are kept: 2 for the last evaluations that specifications
-- want kept, at least one of each; 1 for others that are to be kept; 0 for the rest.
-- $1 servers
with policies as (
    select id, (definition ->> 'keep-evaluations')::bigint as evaluations, (definition ->> 'keep-days')::integer as days
    from specifications
), ranked as (
    select id, specification_id, created_at, row_number() over (partition by specification_id order by id desc) as place
    from evaluations
    where status = 0 and canceled_at is null
), kept as (
    select r.id, r.specification_id, r.place <= greatest(coalesce(p.evaluations, 1), 1) as first
    from ranked r
    join policies p on p.id = r.specification_id
    where r.place <= greatest(coalesce(p.evaluations, 1), 1)
       or p.evaluations is null and p.days is null or r.created_at > now() - make_interval(days => p.days)
), wanted as (
    select j.build_id, k.specification_id, bool_or(k.first) as first
    from kept k
    join jobs j on j.evaluation_id = k.id
    group by j.build_id, k.specification_id
)
select p.id, p.sha256, p.name, o.path as output_path,
       case when w.first then 2 when w.build_id is not null then 1 else 0 end as hold
from build_products p
join product_requests r on r.id = p.request_id
left join wanted w on w.build_id = r.build_id and w.specification_id = r.specification_id
left join outputs o on o.build_id = r.build_id and o.name = r.output
where p.server_id = any ($1::integer[])
