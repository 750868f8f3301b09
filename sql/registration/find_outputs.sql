-- The builds that give these paths.
select path, build_id from outputs where path = any ($1::text[])
