-- The workers that may work for the farm. `server_silent` is how many seconds ago the server that holds the session last beat.
select w.id, w.name, w.machine, w.address, w.version, w.daemon, w.store_directory, w.systems, w.features, w.slots, w.paused,
       w.pause_reason, w.set_aside_at, w.shortage, w.uploads, w.draining, w.connected_at, w.last_seen_at, w.load,
       (e.epoch is not null and e.ended_at is null) as connected,
       v.name as server,
       extract(epoch from now() - e.beat_at)::bigint as server_silent
  from workers w
  left join server_epochs e on e.epoch = w.epoch
  left join servers v on v.id = e.server_id
 where w.revoked_at is null and ($1::text is null or w.machine = $1)
 order by w.machine, w.name;
