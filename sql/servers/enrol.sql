-- $1 name, $2 host, $3 backend port, $4 log port, $5 publish URL, $6 public key, $7 version, $8 address, $9 stores
insert into servers (name, host, backend_port, log_port, publish_url, public_key, version, address, stores)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (name) do update
set host = excluded.host, backend_port = excluded.backend_port, log_port = excluded.log_port,
    publish_url = excluded.publish_url, public_key = excluded.public_key, version = excluded.version, address = excluded.address,
    stores = excluded.stores
returning id
