-- Nobody wants the builds of this evaluation for its own sake any more. One that is still being evaluated will not be published, and its
-- register is told to end it.
-- $1 evaluation id
with stood as (
    select id, status from evaluations where id = $1 for update
)
update evaluations e
set canceled_at = coalesce(e.canceled_at, now()), status = case when stood.status = -1 then 2 else stood.status end,
    finished_at = case when stood.status = -1 then now() else e.finished_at end,
    message = case when stood.status = -1 then 'canceled' else e.message end
from stood
where e.id = stood.id
returning e.id,
    case when stood.status = -1 then pg_notify('hauberk_evaluation_canceled', e.id::text) is not null else false end as evaluating
