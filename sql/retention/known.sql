-- Of these paths, those that a build of the farm gives.
-- $1 paths
select path from outputs where path = any ($1::text[])
