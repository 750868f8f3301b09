-- How many builds wait, by system and by what for. Ready ones, which builds_ready gives by lane, lack a worker that is here and
-- takes work, or a free slot of one. Of those that wait for inputs the rows are read: for a very long queue, keep the answer a while.
with present as (
    select w.store_directory, w.systems, w.features
    from workers w
    join server_epochs e on e.epoch = w.epoch and e.ended_at is null
    where not w.paused and w.shortage is null and not w.draining and w.revoked_at is null
), ready as (
    select l.system, l.store_directory, l.features, r.builds
    from lanes l
    cross join lateral (select count(*) as builds from builds b where b.lane_id = l.id and b.phase = 'ready') r
    where r.builds > 0
)
select r.system,
       case when exists (
           select from present p
           where p.store_directory = r.store_directory and r.features <@ p.features
             and (r.system = 'builtin' or r.system = any (p.systems))
       ) then 'slot' else 'worker' end as reason,
       sum(r.builds)::bigint as builds
from ready r
group by 1, 2
union all
select b.system, case b.phase when 'waiting' then 'inputs' else 'retry' end, count(*)
from builds b
where b.phase in ('waiting', 'deferred')
group by 1, 2
