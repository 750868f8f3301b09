-- A worker is sick: it gets no work until a probe succeeds, or an operator resumes it. One that is paused anyhow stays so.
-- $1 id, $2 epoch, $3 why
update workers set paused = true, pause_reason = $3, set_aside_at = now()
where id = $1 and epoch = $2 and not paused
