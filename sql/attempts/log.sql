-- The log of an attempt, while it is kept.
-- $1 attempt
select log_path, log_complete
from attempts
where id = $1 and log_path is not null and log_expired_at is null
