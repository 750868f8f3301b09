-- How many attempts workers are at, by worker, as the servers wrote it down last.
select n.worker_id, count(*) as attempts
from server_epochs e
join seats s on s.epoch = e.epoch
cross join lateral unnest(s.workers) as n (worker_id)
where e.ended_at is null
group by n.worker_id
