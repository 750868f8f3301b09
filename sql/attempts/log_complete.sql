-- $1 attempt ids, $2 bytes of text (parallel)
update attempts a
set log_complete = true, log_bytes = l.text_bytes
from unnest($1::bigint[], $2::bigint[]) as l (id, text_bytes)
where a.id = l.id
