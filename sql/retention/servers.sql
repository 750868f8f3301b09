-- Servers, or the one of a name.
-- $1 name, or null
select id, name from servers where $1::text is null or name = $1 order by id
