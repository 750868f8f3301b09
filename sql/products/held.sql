-- The hashes of all products that a server is to have.
-- $1 server
select distinct sha256 from build_products where server_id = $1
