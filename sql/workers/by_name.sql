select w.id, w.name, w.public_key, w.signing_key, w.enrolled_at, w.enrolled_by, w.revoked_at, w.paused, w.pause_reason, w.set_aside_at, w.shortage, w.draining,
       w.machine, w.address, w.version, w.daemon, w.store_directory, w.systems, w.features, w.mandatory_features, w.slots, w.publish_url, w.uploads,
       w.epoch, w.connected_at, w.last_seen_at, w.load, w.allowed_systems, v.name as server
from workers w
left join server_epochs e on e.epoch = w.epoch
left join servers v on v.id = e.server_id
where w.name = $1
