-- Takes ready builds for workers: the attempt exists before its message leaves. Gives all that the worker must be told, as
-- dispatch/claimed does; a build that is no longer ready gives no row, nor does any once this start of the server is over.
-- $1 build ids, $2 worker ids, $3 sessions, $6 lanes on whose turn it was (parallel), $4 epoch, $5 server id
-- The state is compared in a way that no index serves: a plan that begins with all ready builds would be quadratic. `offset 0`
-- keeps the planner from reading all outputs for each build, which it prefers while the tables have no statistics.
with claimed as (
    update builds b
    set state = 'assigned', attempt_id = nextval('attempts_id_seq'), not_before = null
    from unnest($1::bigint[], $2::integer[], $3::bigint[], $6::integer[]) as asked (build_id, worker_id, session, lane_id)
    where b.id = any (array[asked.build_id]) and b.state || '' = 'ready'
      and exists (select from server_epochs e where e.epoch = $4 and e.ended_at is null)
    returning b.id, b.attempt_id, b.derivation_id, b.lane_id, b.generation, b.name, b.system, b.priority, b.timeout, b.max_silent,
              b.farm_faults, asked.worker_id, asked.session, asked.lane_id as paying_lane_id
), numbered as (
    select c.*, (select coalesce(max(a.number), 0) + 1 from attempts a where a.build_id = c.id) as number from claimed c
), recorded as (
    insert into attempts (id, build_id, derivation_id, generation, number, kind, worker_id, session, epoch, log_server_id, log_path, lane_id)
    overriding system value
    select c.attempt_id, c.id, c.derivation_id, c.generation, c.number, case when c.number = 1 then 'first' else 'retry' end,
           c.worker_id, c.session, $4, $5, c.attempt_id / 1000 || '/' || c.attempt_id || '.gz', c.paying_lane_id
    from numbered c
)
select b.attempt_id, b.id as build_id, b.name, b.system, b.priority, b.timeout, b.max_silent, b.farm_faults,
       b.worker_id, b.session, b.number, d.path as derivation, l.features,
       gives.names as output_names, gives.paths as output_paths,
       needs.paths as input_paths, needs.hashes as input_hashes, needs.sizes as input_sizes
from numbered b
cross join lateral (select d.path from derivations d where d.id = b.derivation_id offset 0) d
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
