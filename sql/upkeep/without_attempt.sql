-- Builds that are said to be tried, although their attempt is not open.
select b.id as build_id
from builds b
where b.phase = 'open'
  and not exists (select from attempts a where a.id = b.attempt_id and a.ended_at is null)
order by b.id
