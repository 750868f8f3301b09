-- The last line of the audit about $2 done as $3, which this transaction wrote, was about builds $1 too.
insert into audit_builds (build_id, audit_id)
select named.id, (select id from audit where subject = $2 and action = $3 order by id desc limit 1)
from unnest($1::bigint[]) as named (id)
on conflict do nothing
