select pg_notify('hauberk_products', '')
