-- The workers whose store, systems and features fit a build, and how they are.
-- $1 store directory, $2 system, $3 features
select w.id, w.name, w.slots, w.paused, w.pause_reason, w.shortage, w.draining, w.last_seen_at,
       w.revoked_at is null and w.epoch is not null and e.epoch is not null and e.ended_at is null as connected,
       w.revoked_at is not null as revoked, not w.mandatory_features <@ $3::text[] as demands, w.mandatory_features
from workers w
left join server_epochs e on e.epoch = w.epoch
where w.store_directory = $1 and ($2 = any (w.systems) or $2 = 'builtin') and w.features @> $3::text[]
order by w.name
