select nextval(pg_get_serial_sequence('builds', 'id')) as id from generate_series(1, $1)
