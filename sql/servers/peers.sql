-- The other servers that workers may go to: those that were heard of in the last 30 days.
-- $1 server id
select s.name, s.address, s.public_key
from servers s
where s.id <> $1 and s.address is not null
  and exists (select from server_epochs e where e.server_id = s.id and e.beat_at > now() - interval '30 days')
order by s.id
