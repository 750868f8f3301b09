-- Of the builds of these attempts, what is wanted of those that have succeeded and whose outputs a server has.
-- $1 server, $2 attempts
select r.id, r.build_id, r.output, r.path, r.tries, b.generation, o.path as output_path
from (select distinct build_id from attempts where id = any ($2::bigint[])) a
join product_requests r on r.build_id = a.build_id and r.state = 'wanted'
join builds b on b.id = r.build_id
left join outputs o on o.build_id = r.build_id and o.name = r.output
where b.state = 'succeeded' and b.collected_at is null
  and exists (select from outputs h where h.build_id = r.build_id and h.server_id = $1)
order by r.build_id, r.id
