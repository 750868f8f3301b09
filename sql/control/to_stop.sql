-- Open attempts of a server start whose builds operators have canceled.
-- $1 epoch
-- The few canceled builds come first, whatever the statistics say: a plan that begins with all open attempts costs a look at each.
with canceled as materialized (
    select b.attempt_id from builds b
    where b.cancel_requested_at is not null and b.state in ('assigned', 'running') and b.attempt_id is not null
)
select a.id as attempt_id
from canceled c
join attempts a on a.id = c.attempt_id
where a.ended_at is null and a.epoch + 0 = $1
order by a.id
