-- Workers on a trusted network give their names; those that are not known yet are entered. An enrolled one, which has a key, is never
-- changed this way.
-- $1 names, each once
insert into workers (name)
select n.name
from unnest($1::text[]) as n (name)
where not exists (select from workers w where w.name = n.name)
order by n.name
on conflict (name) do nothing
