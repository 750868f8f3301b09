-- What a worker says of itself when it joins, and the server start that has it now.
update workers
set epoch = $2, machine = $3, address = $4, version = $5, daemon = $6, store_directory = $7, systems = $8,
    features = $9, slots = $10, publish_url = $11, mandatory_features = $12, shortage = null,
    connected_at = now(), last_seen_at = now()
where id = $1 and revoked_at is null
