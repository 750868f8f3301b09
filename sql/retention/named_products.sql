-- Of these hashes, those that products of servers have.
-- $1 servers, $2 hashes
select distinct sha256 from build_products where server_id = any ($1::integer[]) and sha256 = any ($2::bytea[])
