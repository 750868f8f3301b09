-- The log of an attempt, while it is kept, and where the server publishes that has it.
-- $1 attempt
select a.log_path, a.log_complete, a.log_server_id, v.publish_url
from attempts a
left join servers v on v.id = a.log_server_id
where a.id = $1 and a.log_path is not null and a.log_expired_at is null
