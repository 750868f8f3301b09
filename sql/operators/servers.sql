-- The servers and the last start of each; `silent` is how many seconds ago it last beat.
select v.name, v.host, v.backend_port, v.version, v.publish_url, e.started_at, e.ended_at,
       extract(epoch from now() - e.beat_at)::bigint as silent
from servers v
left join lateral (
    select started_at, ended_at, beat_at from server_epochs where server_id = v.id order by epoch desc limit 1
) e on true
order by v.name
