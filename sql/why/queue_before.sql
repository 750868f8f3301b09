-- The work that goes before a build, of the most urgent $1 builds that wait, by specification and whether it is as urgent; and how much of it
-- is ready.
-- $1 how many at most, $2 build id, $3 store directory, $4 system, $5 urgency, $6 specification, $7 the step of its path
select l.specification_id, s.shares, o.urgency = $5 as alike, count(*) as builds, sum(o.expected_ms)::bigint as work_ms,
       coalesce(sum(o.expected_ms) filter (where o.phase = 'ready'), 0)::bigint as ready_ms
from (select b.id, b.lane_id, b.urgency, b.path_step, b.expected_ms, b.phase
      from builds b
      where b.phase in ('ready', 'deferred', 'waiting') and b.urgency <= $5
      order by b.urgency, b.created_at, b.id
      limit $1) o
join lanes l on l.id = o.lane_id and l.store_directory = $3 and l.system in ($4, 'builtin')
join specifications s on s.id = l.specification_id
where o.id <> $2 and (o.urgency < $5 or l.specification_id <> $6 or o.path_step > $7 or o.path_step = $7 and o.id < $2)
group by l.specification_id, s.shares, o.urgency = $5
