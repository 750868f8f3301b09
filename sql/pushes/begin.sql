-- A push of an evaluation to a server may begin, or begins anew with another token.
-- $1 evaluation id, $2 server id, $3 digest of the token, $4 seconds for which it is good
insert into pushes (evaluation_id, server_id, token_digest, expires_at)
values ($1, $2, $3, now() + make_interval(secs => $4))
on conflict (evaluation_id, server_id) do update
set token_digest = excluded.token_digest, created_at = now(), expires_at = excluded.expires_at, completed_at = null
