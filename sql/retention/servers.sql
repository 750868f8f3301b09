-- Servers, or those of these names.
-- $1 names; none: all
select id, name from servers where cardinality($1::text[]) = 0 or name = any ($1::text[]) order by id
