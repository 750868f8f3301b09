-- Attempts that a server start owns and that have not ended.
-- $1 epoch
select a.id as attempt_id, a.build_id, a.worker_id, a.built_at is not null as built, a.late, a.fetch_tries,
       b.farm_faults, b.name, d.path as derivation
from attempts a
join builds b on b.id = a.build_id
join derivations d on d.id = a.derivation_id
where a.epoch = $1 and a.ended_at is null
order by a.id
