select build_id, dependency_id from build_dependencies where build_id = any ($1::bigint[])
