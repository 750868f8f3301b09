-- The unfinished builds that jobs of an evaluation name.
-- $1 evaluation id
select distinct b.id as build_id
from jobs j
cross join lateral (select id, status from builds where builds.id = j.build_id limit 1) b
where j.evaluation_id = $1 and b.status < 0
order by 1
