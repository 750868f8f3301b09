-- $1 digest, $2 name, $3 systems, $4 uses, $5 seconds until it expires, $6 by whom
insert into enrolment_tokens (digest, name, systems, uses, created_by, expires_at)
values ($1, $2, $3, $4, $6, now() + make_interval(secs => $5::double precision))
returning id
