-- What waits, by who could build it and by state, as a server has counted it in the last $1 seconds.
select l.store_directory, l.system, l.features, n.state, sum(n.builds)::bigint as builds,
       greatest(extract(epoch from now() - q.counted_at), 0)::bigint as seconds_ago
from queue_counts q
cross join lateral unnest(q.lanes, q.states, q.builds) as n (lane_id, state, builds)
join lanes l on l.id = n.lane_id
where q.counted_at > now() - make_interval(secs => $1)
group by l.store_directory, l.system, l.features, n.state, q.counted_at
order by l.system, l.store_directory, l.features, n.state
