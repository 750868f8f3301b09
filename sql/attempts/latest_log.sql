-- The log of the newest attempt of the build that a derivation or an output belongs to.
-- $1 store path
select a.log_path, a.log_complete
from attempts a
where a.log_path is not null and a.log_expired_at is null and a.build_id = coalesce(
    (select build_id from derivations where path = $1), (select build_id from outputs where path = $1))
order by a.number desc
limit 1
