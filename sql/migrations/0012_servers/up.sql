-- Several servers on one database.

-- Where workers of other servers reach this one's backend port, HOST:PORT.
alter table servers add column address text;
-- What the server publishes of each store: objects with `directory`, `url` and `keys` (those that sign it).
alter table servers add column stores jsonb not null default '[]';
-- How long the start waits for a worker that is not heard of, and how its count is to be judged: it counts several times in this. Starts from
-- before are judged by the usual one.
alter table server_epochs add column lease_ms integer not null default 60000;
-- The starts that are not over: what servers watch of each other.
create index server_epochs_open on server_epochs (epoch) where ended_at is null;
