-- What is wanted of a build and is not here, or not all of it.
select r.output, r.path, r.type, r.state, r.message, s.name as specification
  from product_requests r
  join specifications s on s.id = r.specification_id
 where r.build_id = $1 and (r.state in ('wanted', 'missing', 'refused') or r.message is not null and r.state = 'taken')
 order by r.type, r.output, r.path, s.name
 limit $2;
