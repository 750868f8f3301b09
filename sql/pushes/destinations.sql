-- The servers that publish a store, and whether each has shown lately that it lives.
-- $1 store directory, $2 seconds
select s.id, s.name, t.store ->> 'url' as publish_url, t.store ->> 'identity' as identity,
       exists (
           select from server_epochs e
           where e.server_id = s.id and e.ended_at is null
             and e.beat_at > now() - greatest(make_interval(secs => $2), make_interval(secs => e.lease_ms / 1000.0))
       ) as alive
from servers s
cross join lateral jsonb_array_elements(s.stores) as t (store)
where t.store ->> 'directory' = $1
order by s.id
