-- How urgent builds are from now on, and how long the path is that begins with each. For a transaction that holds other builds:
-- what somebody else holds is passed over, who gives it out or records its end just now.
-- $1 build ids, $2 priorities, $3 whether they go before everything, $4 paths (parallel)
with locked as (
    select b.id, n.priority, n.emergency, n.remaining_path
    from unnest($1::bigint[], $2::smallint[], $3::boolean[], $4::bigint[]) as n (id, priority, emergency, remaining_path)
    join builds b on b.id = any (array[n.id])
    order by b.id + 0
    for no key update of b skip locked
)
update builds b set priority = locked.priority, emergency = locked.emergency, remaining_path = locked.remaining_path
from locked
where b.id = any (array[locked.id])
