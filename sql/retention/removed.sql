-- The farm does not have these outputs any more.
-- $1 paths, $2 the servers that had them
update outputs set nar_hash = null, nar_size = null, server_id = null where path = any ($1::text[]) and (server_id = any ($2::integer[]) or server_id is null)
