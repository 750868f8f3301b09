-- A worker on a trusted network gives its name. An enrolled one, which has a key, is never entered this way.
insert into workers (name) values ($1)
on conflict (name) do update set name = excluded.name
    where workers.public_key is null and workers.revoked_at is null
returning id
