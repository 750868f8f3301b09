-- A worker that was set aside has done a build: it gets work again.
-- $1 id, $2 epoch
update workers set paused = false, pause_reason = null, set_aside_at = null
where id = $1 and epoch = $2 and set_aside_at is not null
