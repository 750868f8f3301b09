-- $1 paths, $2 builds, $3 names (parallel)
insert into outputs (path, build_id, name)
select path, build_id, name from unnest($1::text[], $2::bigint[], $3::text[]) as n (path, build_id, name)
