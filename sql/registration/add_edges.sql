-- $1 builds, $2 what they need (parallel)
insert into build_dependencies (build_id, dependency_id)
select build_id, dependency_id from unnest($1::bigint[], $2::bigint[]) as n (build_id, dependency_id)
on conflict do nothing
