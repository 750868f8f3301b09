-- How urgent builds are from now on. Locked in the order of the id.
-- $1 build ids, $2 priorities, $3 whether they go before everything (parallel)
with locked as (
    select b.id, n.priority, n.emergency
    from unnest($1::bigint[], $2::smallint[], $3::boolean[]) as n (id, priority, emergency)
    join builds b on b.id = any (array[n.id])
    order by b.id + 0
    for no key update of b
)
update builds b set priority = locked.priority, emergency = locked.emergency
from locked
where b.id = any (array[locked.id])
