-- Whether a newer start of the same server has begun.
-- $1 server id, $2 epoch
select exists (select from server_epochs where server_id = $1 and epoch > $2) as newer
