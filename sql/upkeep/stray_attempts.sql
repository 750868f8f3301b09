-- Open attempts that their builds do not speak of.
select a.id as attempt_id
from attempts a
join builds b on b.id = a.build_id
where a.ended_at is null and a.kind <> 'check' and not a.late
  and (b.attempt_id is distinct from a.id or b.state not in ('assigned', 'running', 'built', 'fetching'))
order by a.id
