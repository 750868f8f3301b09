-- Where the other servers that live publish items of a store, and the keys that sign them there.
-- $1 server id, $2 store directory
select s.name, t.url, t.keys
from servers s
cross join lateral jsonb_to_recordset(s.stores) as t (directory text, url text, keys text[])
where s.id <> $1 and t.directory = $2
  and exists (select from server_epochs e where e.server_id = s.id and e.ended_at is null)
order by s.id
