-- Whether things may be pushed to a server by this token now: for an evaluation that is under way.
-- $1 evaluation id, $2 server id, $3 digest of the token
select exists (
    select from pushes p
    join evaluations e on e.id = p.evaluation_id
    where p.evaluation_id = $1 and p.server_id = $2 and p.token_digest = $3 and p.expires_at > now() and e.status = -1
) as admits
