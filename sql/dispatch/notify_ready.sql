-- Tells the other servers that this one's results made builds ready; it knows itself.
-- $1 epoch
select pg_notify('hauberk_ready', $1::bigint::text)
