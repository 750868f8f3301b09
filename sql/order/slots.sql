-- How many slots the workers have that were there within a day.
select coalesce(sum(slots), 0)::bigint as slots
from workers
where revoked_at is null and last_seen_at > now() - interval '1 day'
