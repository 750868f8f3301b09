-- The signing key that a worker without one shows first is the one it must use from then on.
update workers set signing_key = coalesce(signing_key, $2) where id = $1 returning signing_key
