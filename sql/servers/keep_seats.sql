-- What the workers of a server's start have in their slots. What older starts wrote down goes.
-- $1 epoch, $2 attempts, $3 their workers (parallel)
with over as (
    delete from seats s using server_epochs e where e.epoch = s.epoch and e.ended_at is not null
)
insert into seats (epoch, attempts, workers)
select e.epoch, $2, $3 from server_epochs e where e.epoch = $1 and e.ended_at is null
on conflict (epoch) do update set attempts = excluded.attempts, workers = excluded.workers, at = now()
