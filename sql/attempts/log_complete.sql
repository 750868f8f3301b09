-- $1 attempt ids, $2 bytes of text (parallel), $3 the server that has them
-- Rows that others hold are left out: committers lock rows of attempts in an order of their own, so that to wait for some while holding
-- others could go round in a circle.
with free as materialized (
    select id from attempts where id = any ($1::bigint[]) for no key update skip locked
)
update attempts a
set log_complete = true, log_bytes = l.text_bytes, log_server_id = $3
from unnest($1::bigint[], $2::bigint[]) as l (id, text_bytes)
where a.id = any (array[l.id]) and l.id in (select id from free)
returning a.id as attempt_id
