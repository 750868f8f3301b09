-- They wait in both. Locked in the order of the id.
-- $1 build ids, $2 specification
with locked as (
    select b.id, mine.id as lane_id
    from unnest($1::bigint[]) as asked (id)
    join builds b on b.id = asked.id
    join lanes l on l.id = b.lane_id
    join lanes mine on mine.specification_id = $2 and mine.store_directory = l.store_directory and mine.system = l.system
                   and mine.features = l.features
    where l.specification_id <> $2 and b.status < 0 and not coalesce(b.other_lanes @> array[mine.id], false)
    order by b.id
    for no key update of b
)
update builds b set other_lanes = coalesce(b.other_lanes, '{}') || locked.lane_id
from locked
where b.id = locked.id
