-- Attempts that these workers are at, by worker.
-- $1 worker ids
select a.worker_id, count(*) as attempts
from server_epochs e
join attempts a on a.epoch = e.epoch and a.ended_at is null and a.built_at is null
where e.ended_at is null and a.worker_id = any ($1::integer[])
group by a.worker_id
