-- All that a worker must be told of attempts that have just been recorded.
-- $1 attempt ids
select a.id as attempt_id, b.id as build_id, b.name, b.system, b.priority, b.timeout, b.max_silent, b.farm_faults,
       a.worker_id, a.session, a.number, d.path as derivation, l.features,
       array(select o.name from outputs o where o.build_id = b.id order by o.name) as output_names,
       array(select o.path from outputs o where o.build_id = b.id order by o.name) as output_paths,
       array(select o.path from build_dependencies e join outputs o on o.build_id = e.dependency_id
             where e.build_id = b.id and o.nar_hash is not null order by o.path) as input_paths,
       array(select o.nar_hash from build_dependencies e join outputs o on o.build_id = e.dependency_id
             where e.build_id = b.id and o.nar_hash is not null order by o.path) as input_hashes,
       array(select o.nar_size from build_dependencies e join outputs o on o.build_id = e.dependency_id
             where e.build_id = b.id and o.nar_hash is not null order by o.path) as input_sizes
from attempts a
join builds b on b.id = a.build_id
join derivations d on d.id = a.derivation_id
join lanes l on l.id = b.lane_id
where a.id = any ($1::bigint[])
