-- Of these paths, those that may be removed: nobody has begun to build or to need them again. Their builds hold still until the transaction ends.
-- $1 paths, $2 the servers whose cache they are in
select o.path, coalesce(o.server_id = any ($2::integer[]), true) as own
from outputs o
join builds b on b.id = o.build_id
where o.path = any ($1::text[]) and (b.collected_at is not null or o.server_id <> all ($2::integer[]))
order by b.id
for update of b
