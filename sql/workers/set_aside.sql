-- A worker is sick: it gets no work until a probe succeeds, or an operator resumes it. One that is paused anyhow stays so, and so does one that has
-- a system, or features for it, that no other worker of the farm has that takes work, at whatever server.
-- $1 id, $2 epoch, $3 why
update workers w set paused = true, pause_reason = $3, set_aside_at = now()
where id = $1 and epoch = $2 and not paused and not exists (
    select from unnest(w.systems) as own (system)
    where not exists (
        select from workers o
        join server_epochs e on e.epoch = o.epoch and e.ended_at is null
        where o.id <> w.id and not o.paused and not o.draining and o.shortage is null and o.revoked_at is null
          and o.store_directory = w.store_directory and own.system = any (o.systems)
          and o.features @> w.features and o.mandatory_features <@ w.mandatory_features))
