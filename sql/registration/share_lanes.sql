-- Builds of other specifications that this one wants as well need lanes of its own.
-- $1 build ids, $2 specification
insert into lanes (specification_id, store_directory, system, features)
select distinct $2::integer, l.store_directory, l.system, l.features
from unnest($1::bigint[]) as asked (id)
join builds b on b.id = asked.id
join lanes l on l.id = b.lane_id
where l.specification_id <> $2 and b.status < 0
on conflict do nothing
