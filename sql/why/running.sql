-- The builds that workers have, as the servers wrote it down last, or some of them evenly out of many: how long each should take, and has
-- taken, and for how many it stands.
-- $1 store directory, $2 system, $3 how many at most of each server
select b.expected_ms, (extract(epoch from now() - a.assigned_at) * 1000)::bigint as elapsed_ms, s.step as stands_for
from server_epochs e
cross join lateral (
    select s.attempts, 1 + cardinality(s.attempts) / $3::integer as step from seats s where s.epoch = e.epoch offset 0
) s
cross join lateral generate_series(1, cardinality(s.attempts), s.step) as n (place)
cross join lateral (
    select a.build_id, a.assigned_at from attempts a
    where a.id = s.attempts[n.place] and a.ended_at is null and a.built_at is null offset 0
) a
cross join lateral (select b.expected_ms, b.lane_id from builds b where b.id = a.build_id offset 0) b
join lanes l on l.id = b.lane_id and l.store_directory = $1 and l.system in ($2, 'builtin')
where e.ended_at is null
