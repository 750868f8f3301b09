-- How an attempt stands, and its build, and the attempt that is open instead of it. Began first: by the moment its builder
-- began; of two that have not, or at the same moment, the older.
-- $1 attempt id
select a.build_id, a.worker_id, a.class, a.epoch, a.kind, a.late, a.built_at is not null as built, a.generation = b.generation as current, b.state, b.name, b.farm_faults,
       o.id as other_id, o.worker_id as other_worker_id, coalesce(o.built_at is not null, false) as other_built,
       coalesce((coalesce(a.started_at, 'infinity'), a.id) < (coalesce(o.started_at, 'infinity'), o.id), true) as first
from attempts a
join builds b on b.id = a.build_id
left join attempts o on o.build_id = a.build_id and o.id <> a.id and o.ended_at is null and o.kind <> 'check' and not o.late
where a.id = $1
