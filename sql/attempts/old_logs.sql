-- Among the $4 attempts after attempt $1, oldest first: those that ended more than $3 seconds ago and whose logs this server ($2)
-- has. The last of the $4 always comes along, to go on from; `old` tells whether it was assigned so long ago.
-- Attempts are numbered in the order of their assignment, so that it walks along the primary key and stops where they are young.
with walked as materialized (
    select id, log_path, assigned_at < now() - make_interval(secs => $3::double precision) as old,
           log_path is not null and log_server_id = $2 and log_expired_at is null
               and ended_at < now() - make_interval(secs => $3::double precision) as expired
    from attempts
    where id > $1
    order by id
    limit $4)
select id, coalesce(expired, false) as expired, old, log_path
from walked
where expired or id = (select max(id) from walked)
order by id
