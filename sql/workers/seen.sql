-- Heartbeats of many workers at once, from the server start that has them. Locked in the order of the id. Whoever begins or ceases to lack
-- something is told of at once.
with seen as (
    select w.id, s.load, w.shortage is null as could
    from unnest($1::integer[], $2::jsonb[]) as s (id, load)
    join workers w on w.id = s.id
    where w.epoch = $3
    order by w.id
    for no key update of w
), written as (
    update workers w
    set last_seen_at = now(), load = coalesce(seen.load, w.load),
        shortage = case when seen.load is null then w.shortage else seen.load ->> 'shortage' end
    from seen
    where w.id = seen.id
    returning w.name, seen.could <> (w.shortage is null) as changed
)
select pg_notify('hauberk_changed', 'worker:' || name) from written where changed
