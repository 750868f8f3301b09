-- The token that somebody presents, locked, so that its last use is given to one.
-- $1 digest
select id, name, systems, uses, used, created_at, created_by, expires_at, revoked_at, expires_at <= now() as expired
from enrolment_tokens
where digest = $1
for update
