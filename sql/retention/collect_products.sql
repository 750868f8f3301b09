-- Products that are about to be removed; their requests lose all of theirs.
-- $1 products, $2 servers
with going as (
    select distinct request_id from build_products where id = any ($1::bigint[]) and server_id = any ($2::integer[])
), gone as (
    delete from build_products p using going where p.request_id = going.request_id
)
update product_requests r set state = 'removed', message = null, changed_at = now() from going where r.id = going.request_id
