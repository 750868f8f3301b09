-- $1 the builds that line $2 of the audit was about.
insert into audit_builds (build_id, audit_id) select id, $2 from unnest($1::bigint[]) as named (id) on conflict do nothing
