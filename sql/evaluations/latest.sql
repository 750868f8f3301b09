-- The last evaluation of a specification, and whether the specification changed since it began, or it is to be repeated.
select e.id, e.status, (e.created_at < s.updated_at or e.retry_requested_at is not null) as outdated,
       e.canceled_at is not null as canceled
from specifications s
join evaluations e on e.specification_id = s.id
where s.id = $1
order by e.id desc
limit 1
