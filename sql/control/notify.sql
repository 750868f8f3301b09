select pg_notify('hauberk_control', '')
