-- How the results of workers come that the server start $1 has: $2 ids, $3 whether each uploads. Locked in the order of the id.
with found as (
    select w.id, s.uploads
    from unnest($2::integer[], $3::boolean[]) as s (id, uploads)
    join workers w on w.id = s.id
    where w.epoch = $1 and w.uploads is distinct from s.uploads
    order by w.id
    for no key update of w
), written as (
    update workers w set uploads = found.uploads from found where w.id = found.id returning w.name
)
select pg_notify('hauberk_changed', 'worker:' || name) from written
