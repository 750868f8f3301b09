-- Whether something is being pushed to one of some servers for an evaluation that is not published yet.
-- $1 server ids
select exists (
    select from evaluations e
    join pushes p on p.evaluation_id = e.id
    where e.status = -1 and p.server_id = any($1) and p.expires_at > now()
) as under_way
