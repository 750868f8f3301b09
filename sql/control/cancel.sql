-- Cancels builds that wait, and asks for those that run to be stopped. What is built already stays as it is. Locked in the order of
-- the id.
-- $1 build ids
with locked as (
    select id from builds where id = any ($1::bigint[]) and status < 0 order by id for no key update
)
update builds b
set state = case when b.state in ('staged', 'held', 'waiting', 'deferred', 'ready') then 'canceled' else b.state end,
    started_at = case when b.state in ('staged', 'held', 'waiting', 'deferred', 'ready') then now() else b.started_at end,
    finished_at = case when b.state in ('staged', 'held', 'waiting', 'deferred', 'ready') then now() end,
    not_before = null, failed_build_id = null,
    cancel_requested_at = case when b.state in ('assigned', 'running') then coalesce(b.cancel_requested_at, now()) end
from locked
where b.id = locked.id and b.status < 0
returning b.id as build_id, b.state
