select pg_notify('hauberk_changed', 'worker:' || name) from workers where id = $1
