-- The head of every lane: at most $1 builds each, the most urgent first.
select l.id as lane_id, l.specification_id, l.store_directory, l.system, l.features,
       r.id as build_id, r.urgency as priority, r.remaining_path
from lanes l
cross join lateral (
    select b.id, b.urgency, b.remaining_path
    from builds b
    where b.lane_id = l.id and b.phase = 'ready'
    order by b.urgency, b.remaining_path desc, b.id
    limit $1
) r
