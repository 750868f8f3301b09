-- Removes notes whose builds are told of.
-- $1 note ids
delete from order_notes where id = any ($1::bigint[])
