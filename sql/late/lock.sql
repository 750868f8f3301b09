-- Locks the build of an attempt, before anything about it is decided.
-- $1 attempt id
select id from builds where id = (select build_id from attempts where id = $1) for no key update
