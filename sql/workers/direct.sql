-- What an operator wants of a worker. Nulls leave what is there. Pausing and resuming is the operator's from then on.
-- $1 name, $2 paused, $3 why, $4 draining
update workers
set paused = coalesce($2, paused), pause_reason = case when $2 then $3 when not $2 then null else pause_reason end,
    set_aside_at = case when $2 is null then set_aside_at end, draining = coalesce($4, draining)
where name = $1 and revoked_at is null
returning id
