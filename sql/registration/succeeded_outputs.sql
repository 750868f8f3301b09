-- Those of these paths that the farm has built, and has.
select o.path
from outputs o
join builds b on b.id = o.build_id
where o.path = any ($1::text[]) and b.state = 'succeeded' and b.collected_at is null
