-- $1 ids
select pg_notify('hauberk_changed', 'worker:' || name) from workers where id = any($1::integer[])
