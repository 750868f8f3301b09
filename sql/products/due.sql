-- What is wanted of builds that have succeeded and whose outputs a server has.
-- $1 server, $2 most rows
select r.id, r.build_id, r.output, r.path, r.tries, b.generation, o.path as output_path
from product_requests r
join builds b on b.id = r.build_id
left join outputs o on o.build_id = r.build_id and o.name = r.output
where r.state = 'wanted' and (r.retry_at is null or r.retry_at <= now())
  and b.state = 'succeeded' and b.collected_at is null
  and exists (select from outputs h where h.build_id = r.build_id and h.server_id = $1)
order by r.build_id, r.id
limit $2
