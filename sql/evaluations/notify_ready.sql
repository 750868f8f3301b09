select pg_notify('hauberk_ready', '')
