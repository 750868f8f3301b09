-- What the workers at other servers can build that take work.
-- $1 epoch
select distinct w.store_directory, w.systems, w.features, w.mandatory_features
from workers w
join server_epochs e on e.epoch = w.epoch
where w.epoch <> $1 and e.ended_at is null and not w.paused and not w.draining and w.shortage is null and w.revoked_at is null
  and w.store_directory is not null
