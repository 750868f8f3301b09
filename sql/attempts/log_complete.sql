-- $1 attempt id, $2 bytes of text
update attempts set log_complete = true, log_bytes = $2 where id = $1
