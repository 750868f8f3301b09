-- Nobody wants the builds of this evaluation for its own sake any more. One that is still being evaluated will not be published.
-- $1 evaluation id
update evaluations
set canceled_at = coalesce(canceled_at, now()), status = case when status = -1 then 2 else status end,
    finished_at = case when status = -1 then now() else finished_at end,
    message = case when status = -1 then 'canceled' else message end
where id = $1
returning id
