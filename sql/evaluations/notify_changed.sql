select pg_notify('hauberk_changed', '')
