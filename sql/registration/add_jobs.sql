-- Jobs of an evaluation. `offset 0` keeps the planner from going through all evaluations of the specification for each.
-- $1 evaluation, $2 names, $3 builds, $4 derivations, $5 priorities (parallel)
insert into jobs (evaluation_id, name, build_id, derivation_id, priority, repeats)
select $1, name, build_id, derivation_id, priority,
       exists (
           select
           from (select pj.evaluation_id from jobs pj where pj.name = n.name and pj.evaluation_id < $1 offset 0) pj
           join evaluations pe on pe.id = pj.evaluation_id
           join evaluations own on own.id = $1 and own.specification_id = pe.specification_id
       )
from unnest($2::text[], $3::bigint[], $4::bigint[], $5::smallint[]) as n (name, build_id, derivation_id, priority)
