-- Heartbeats of many workers at once, from the server start that has them. Locked in the order of the id.
with seen as (
    select w.id, s.load
    from unnest($1::integer[], $2::jsonb[]) as s (id, load)
    join workers w on w.id = s.id
    where w.epoch = $3
    order by w.id
    for no key update of w
)
update workers w set last_seen_at = now(), load = coalesce(seen.load, w.load) from seen where w.id = seen.id
