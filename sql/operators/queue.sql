-- What waits, by who could build it and by state.
with counted as (
    select lane_id, state, count(*) as builds
    from builds
    where phase in ('ready', 'deferred', 'waiting')
    group by lane_id, state
)
select l.store_directory, l.system, l.features, c.state, sum(c.builds)::bigint as builds
from counted c
join lanes l on l.id = c.lane_id
group by l.store_directory, l.system, l.features, c.state
order by l.system, l.store_directory, l.features, c.state
