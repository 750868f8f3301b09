-- The product of a type that belongs to the newest evaluation, of those whose job, specification and system are as wanted. Only the last ten
-- thousand products of the type are looked through.
-- $1 type; or null for any: $2 beginning of the name of the build or of the job, $3 job, $4 specification, $5 system
with recent as (
    select id, build_id, request_id from build_products where type = $1 order by id desc limit 10000
)
select p.id
  from recent p
  join product_requests r on r.id = p.request_id
  join builds b on b.id = p.build_id
  join jobs j on j.build_id = p.build_id
  join evaluations e on e.id = j.evaluation_id and e.specification_id = r.specification_id
  join specifications s on s.id = e.specification_id
 where ($2::text is null or starts_with(b.name, $2) or starts_with(j.name, $2))
   and ($3::text is null or j.name = $3)
   and ($4::text is null or s.name = $4)
   and ($5::text is null or b.system = $5)
 order by e.id desc, j.name, p.id
 limit 1;
