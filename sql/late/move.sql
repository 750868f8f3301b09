-- An open attempt goes to the server that its worker is at now, unless that start of it is over.
-- $1 attempt id, $2 epoch
update attempts set epoch = $2
where id = $1 and ended_at is null and exists (select from server_epochs where epoch = $2 and ended_at is null)
