-- What workers say of themselves when they join, and the server start that has them now. Locked in the order of the id.
-- $1 epoch, $2 an array of objects, one for each worker
with said as (
    select s.*
    from jsonb_to_recordset($2::jsonb) as s (
        id integer, machine text, address text, version text, daemon text, store_directory text, systems text[], features text[],
        mandatory_features text[], slots integer, publish_url text)
    join workers w on w.id = s.id
    where w.revoked_at is null
    order by w.id
    for no key update of w
)
update workers w
set epoch = $1, machine = s.machine, address = s.address, version = s.version, daemon = s.daemon, store_directory = s.store_directory,
    systems = s.systems, features = s.features, mandatory_features = s.mandatory_features, slots = s.slots,
    publish_url = s.publish_url, uploads = null, shortage = null, connected_at = now(), last_seen_at = now()
from said s
where w.id = s.id
returning w.id
