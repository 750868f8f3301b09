-- A start of a server; its older starts are over.
-- $1 server id, $2 lease in milliseconds
with over as (
    update server_epochs set ended_at = now() where server_id = $1 and ended_at is null
)
insert into server_epochs (server_id, lease_ms) values ($1, $2) returning epoch
