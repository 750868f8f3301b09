-- $1 systems, $2 scopes, $3 likenesses, $4 the last durations of each as an array in its text form (parallel)
insert into durations (system, scope, likeness, recent)
select n.system, n.scope, n.likeness, n.recent::bigint[]
from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as n (system, scope, likeness, recent)
on conflict (system, scope, likeness) do update set recent = excluded.recent
