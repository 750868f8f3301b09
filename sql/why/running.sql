-- The builds that run on workers: how long each should take, and has taken. Of a size with the farm.
-- $1 store directory, $2 system
select b.expected_ms, (extract(epoch from now() - a.assigned_at) * 1000)::bigint as elapsed_ms
from builds b
join lanes l on l.id = b.lane_id and l.store_directory = $1 and l.system in ($2, 'builtin')
join attempts a on a.id = b.attempt_id
where b.phase = 'open' and b.state in ('assigned', 'running')
