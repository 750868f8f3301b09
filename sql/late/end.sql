-- Ends an attempt that stood beside another.
-- $1 attempt id, $2 epoch, $3 class, $4 message
update attempts set ended_at = now(), class = $3, message = $4 where id = $1 and epoch = $2 and late and ended_at is null
