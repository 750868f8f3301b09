-- What is known of some likenesses.
-- $1 systems, $2 scopes, $3 likenesses (parallel)
select d.system, d.scope, d.likeness, d.recent
from unnest($1::text[], $2::text[], $3::text[]) as asked (system, scope, likeness)
cross join lateral (
    select * from durations d
    where d.system = asked.system and d.scope = asked.scope and d.likeness = asked.likeness offset 0
) d
