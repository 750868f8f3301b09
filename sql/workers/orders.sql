-- What operators, or the farm itself, want of the workers that a server start has, or whose attempts it has.
-- $1 epoch
select id, paused, pause_reason, draining, revoked_at is not null as revoked, set_aside_at is not null as set_aside
from workers w
where epoch = $1
   or revoked_at is not null and exists (
        select from attempts a where a.epoch = $1 and a.worker_id = w.id and a.ended_at is null)
