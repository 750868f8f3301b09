-- Whose log it is and where it goes. Workers that were removed have none any more.
-- $1 attempt id
select a.worker_id, w.public_key, a.log_path, a.log_complete or a.log_expired_at is not null as log_complete,
       d.path as derivation
from attempts a
join workers w on w.id = a.worker_id
join derivations d on d.id = a.derivation_id
where a.id = $1 and w.revoked_at is null
