-- Another attempt of the build counts.
-- $1 attempt id, $2 why
update attempts set ended_at = now(), class = 'superseded', message = $2 where id = $1 and ended_at is null
