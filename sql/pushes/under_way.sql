-- Whether something is being pushed to a server for an evaluation that is not published yet.
-- $1 server id
select exists (
    select from evaluations e
    join pushes p on p.evaluation_id = e.id
    where e.status = -1 and p.server_id = $1 and p.expires_at > now()
) as under_way
