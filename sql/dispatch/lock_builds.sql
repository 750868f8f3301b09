-- Locks all the builds a batch touches directly, in the order of their id, before anything else is done to them.
-- $1 build ids
select id from builds where id = any ($1::bigint[]) order by id for no key update
