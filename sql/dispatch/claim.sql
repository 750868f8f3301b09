-- Takes ready builds for workers: the attempt exists before its message leaves. A build that is no longer ready gives no row.
-- $1 build ids, $2 worker ids, $3 sessions (parallel), $4 epoch, $5 server id
-- The state is compared in a way that no index serves: a plan that begins with all ready builds would be quadratic.
with asked as (
    select a.build_id, a.worker_id, a.session, nextval(pg_get_serial_sequence('attempts', 'id')) as attempt_id
    from unnest($1::bigint[], $2::integer[], $3::bigint[]) as a (build_id, worker_id, session)
), claimed as (
    update builds b
    set state = 'assigned', attempt_id = asked.attempt_id, not_before = null
    from asked
    where b.id = asked.build_id and b.state || '' = 'ready'
    returning b.id, b.attempt_id, b.derivation_id, b.generation, asked.worker_id, asked.session
)
insert into attempts (id, build_id, derivation_id, generation, number, kind, worker_id, session, epoch,
                      log_server_id, log_path)
overriding system value
select c.attempt_id, c.id, c.derivation_id, c.generation, earlier.number + 1,
       case when earlier.number = 0 then 'first' else 'retry' end,
       c.worker_id, c.session, $4, $5, c.attempt_id / 1000 || '/' || c.attempt_id || '.gz'
from claimed c
cross join lateral (
    select coalesce(max(a.number), 0) as number from attempts a where a.build_id = c.id
) earlier
returning id as attempt_id
