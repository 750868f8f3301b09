-- An attempt that had been given up is open again.
-- $1 attempt id, $2 epoch, $3 whether it stands beside another open one
update attempts set ended_at = null, class = null, message = null, epoch = $2, late = $3 where id = $1 and ended_at is not null
