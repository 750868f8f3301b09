-- Which of these builds are over, and the workers that brought them to an end of their own.
-- $1 build ids, $2 classes of such ends
select b.id as build_id, a.worker_id
from builds b
left join attempts a on a.build_id = b.id and a.generation = b.generation and a.class = any ($2::text[])
where b.id = any ($1::bigint[]) and b.status >= 0
order by b.id
