-- $1 evaluation, $2 names, $3 builds, $4 derivations, $5 priorities (parallel)
insert into jobs (evaluation_id, name, build_id, derivation_id, priority, repeats)
select $1, name, build_id, derivation_id, priority,
       exists (
           select
           from evaluations own
           join evaluations pe on pe.specification_id = own.specification_id
           join jobs pj on pj.evaluation_id = pe.id
           where own.id = $1 and pj.name = n.name and pj.evaluation_id < $1
       )
from unnest($2::text[], $3::bigint[], $4::bigint[], $5::smallint[]) as n (name, build_id, derivation_id, priority)
