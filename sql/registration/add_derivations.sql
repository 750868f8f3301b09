-- $1 ids, $2 paths, $3 builds (parallel)
insert into derivations (id, path, build_id)
overriding system value
select id, path, build_id from unnest($1::bigint[], $2::text[], $3::bigint[]) as n (id, path, build_id)
