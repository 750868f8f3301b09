-- Only the server start that has the worker can say that it left.
update workers set epoch = null, last_seen_at = now() where id = $1 and epoch = $2
