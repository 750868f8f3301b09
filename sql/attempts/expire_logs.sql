-- Records that the logs of attempts $1 were removed.
update attempts set log_expired_at = now() where id = any ($1::bigint[]) and log_expired_at is null
