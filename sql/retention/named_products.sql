-- Of these hashes, those that products of a server have.
-- $1 server, $2 hashes
select distinct sha256 from build_products where server_id = $1 and sha256 = any ($2::bytea[])
