-- Unfinished builds that do not wait for what they need: their counter is wrong, or they wait for nothing, or for what has failed.
select b.id as build_id
from builds b
cross join lateral (
    select count(*) filter (where d.status <> 0)::integer as unmet, coalesce(bool_or(d.status > 0), false) as bad
    from build_dependencies e
    join builds d on d.id = e.dependency_id
    where e.build_id = b.id
) n
where b.phase in ('ready', 'deferred', 'waiting')
  and (b.unmet <> n.unmet or n.bad or b.state = 'waiting' and n.unmet = 0 or b.state in ('deferred', 'ready') and n.unmet > 0)
order by b.id
