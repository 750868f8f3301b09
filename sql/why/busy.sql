-- Attempts that workers are at, by worker. Of a size with the farm.
select a.worker_id, count(*) as attempts
from server_epochs e
join attempts a on a.epoch = e.epoch and a.ended_at is null and a.built_at is null
where e.ended_at is null
group by a.worker_id
