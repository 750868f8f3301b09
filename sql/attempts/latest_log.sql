-- The log of the newest attempt of the build that a derivation or an output belongs to, and where the server publishes that has it.
-- $1 store path
select a.log_path, a.log_complete, a.log_server_id, v.publish_url
from attempts a
left join servers v on v.id = a.log_server_id
where a.log_path is not null and a.log_expired_at is null and a.build_id = coalesce(
    (select build_id from derivations where path = $1), (select build_id from outputs where path = $1))
order by a.number desc
limit 1
