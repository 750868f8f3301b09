-- Another server receives these logs now: its worker has come to it with the attempt. Rows that others hold are left out, as in
-- attempts/log_complete, which says it again at the end.
-- $1 attempt ids, $2 server id
with free as materialized (
    select id from attempts where id = any ($1::bigint[]) and not log_complete for no key update skip locked
)
update attempts a set log_server_id = $2 from free where a.id = any (array[free.id])
