-- The products of a request.
-- $1 request, $2 server; $3 paths, $4 names, $5 whether they are archives, $6 sizes, $7 hashes (parallel)
insert into build_products (build_id, request_id, type, path, name, directory, file_size, sha256, server_id)
select r.build_id, r.id, r.type, n.path, n.name, n.directory, n.file_size, n.sha256, $2
from product_requests r,
     unnest($3::text[], $4::text[], $5::boolean[], $6::bigint[], $7::bytea[]) as n (path, name, directory, file_size, sha256)
where r.id = $1
on conflict (request_id, path) do nothing
