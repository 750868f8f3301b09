-- The signing key that a worker without one shows first is the one it must use from then on.
-- $1 ids, locked already, $2 signing keys
update workers w
set signing_key = s.signing_key
from unnest($1::integer[], $2::text[]) as s (id, signing_key)
where w.id = s.id and w.signing_key is null
