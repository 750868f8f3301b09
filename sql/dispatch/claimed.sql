-- All that a worker must be told of attempts that are recorded already.
-- `offset 0` keeps the planner from reading all outputs for each attempt, which it prefers while the tables have no statistics.
-- $1 attempt ids
select a.id as attempt_id, b.id as build_id, b.name, b.system, b.priority, b.timeout, b.max_silent, b.farm_faults,
       a.worker_id, a.session, a.number, d.path as derivation, l.features,
       gives.names as output_names, gives.paths as output_paths,
       needs.paths as input_paths, needs.hashes as input_hashes, needs.sizes as input_sizes
from unnest($1::bigint[]) as asked (id)
cross join lateral (select * from attempts a where a.id = asked.id offset 0) a
cross join lateral (select * from builds b where b.id = a.build_id offset 0) b
cross join lateral (select d.path from derivations d where d.id = a.derivation_id offset 0) d
cross join lateral (select l.features from lanes l where l.id = b.lane_id offset 0) l
cross join lateral (
    select coalesce(array_agg(o.name order by o.name), '{}') as names,
           coalesce(array_agg(o.path order by o.name), '{}') as paths
    from outputs o
    where o.build_id = b.id
) gives
cross join lateral (
    select coalesce(array_agg(o.path order by o.path), '{}') as paths,
           coalesce(array_agg(o.nar_hash order by o.path), '{}') as hashes,
           coalesce(array_agg(o.nar_size order by o.path), '{}') as sizes
    from (select e.dependency_id from build_dependencies e where e.build_id = b.id offset 0) e
    cross join lateral (
        select o.path, o.nar_hash, o.nar_size from outputs o where o.build_id = e.dependency_id offset 0
    ) o
    where o.nar_hash is not null
) needs
