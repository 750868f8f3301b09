-- Open attempts of a server start whose builds operators have canceled.
-- $1 epoch
select a.id as attempt_id
from builds b
join attempts a on a.id = b.attempt_id
where b.cancel_requested_at is not null and b.status < 0 and b.state in ('assigned', 'running')
  and a.ended_at is null and a.epoch = $1
order by a.id
