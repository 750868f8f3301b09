select id, name, systems, uses, used, created_at, created_by, expires_at, revoked_at, expires_at <= now() as expired
from enrolment_tokens
order by id
