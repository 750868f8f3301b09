-- $1 builds, $2 what they needed (parallel)
delete from build_dependencies e
using unnest($1::bigint[], $2::bigint[]) as n (build_id, dependency_id)
where e.build_id = n.build_id and e.dependency_id = n.dependency_id
