-- Attempts that a server start owns and that have not ended.
-- $1 epoch, $2 classes of ends that were the farm's fault: the few builds that had such show where.
select a.id as attempt_id, a.build_id, a.worker_id, a.built_at is not null as built, a.late, a.fetch_tries,
       b.farm_faults, b.name, d.path as derivation, l.specification_id, b.expected_ms,
       (extract(epoch from now() - a.assigned_at) * 1000)::bigint as age_ms,
       case when b.farm_faults > 0 then array(
           select distinct f.worker_id from attempts f
           where f.build_id = b.id and f.generation = b.generation and f.class = any ($2::text[])) end as failed_on
from attempts a
join builds b on b.id = a.build_id
join derivations d on d.id = a.derivation_id
join lanes l on l.id = coalesce(a.lane_id, b.lane_id)
where a.epoch = $1 and a.ended_at is null
order by a.id
