-- What specifications have used, as a server counts it.
-- $1 server id; $2 specifications, $3 slot-seconds (parallel)
insert into specification_usage (server_id, specification_id, slot_seconds)
select $1, n.specification_id, n.slot_seconds
from unnest($2::integer[], $3::double precision[]) as n (specification_id, slot_seconds)
on conflict (server_id, specification_id) do update set slot_seconds = excluded.slot_seconds, at = now()
