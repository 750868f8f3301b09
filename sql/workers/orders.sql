-- What operators want of the workers that a server start has.
-- $1 epoch
select id, paused, pause_reason, draining from workers where epoch = $1
