-- $1 evaluation, $2 names, $3 builds, $4 derivations, $5 priorities (parallel)
insert into jobs (evaluation_id, name, build_id, derivation_id, priority)
select $1, name, build_id, derivation_id, priority
from unnest($2::text[], $3::bigint[], $4::bigint[], $5::smallint[]) as n (name, build_id, derivation_id, priority)
