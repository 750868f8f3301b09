-- Deferred builds whose time has come.
with due as (
    select id from builds where phase = 'deferred' and not_before <= now() order by id for update
)
update builds b
set state = 'ready', not_before = null
from due
where b.id = due.id
returning b.id as build_id, b.lane_id, b.priority, b.remaining_path
