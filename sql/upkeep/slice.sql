-- Looks at the next waiting builds: which of them do not wait for what they say they wait for? One row; `last` is null at the end.
-- $1 the id after which to begin, $2 how many at most
select max(s.id) as last,
       coalesce(array_agg(s.id order by s.id) filter (where s.unmet <> n.unmet or n.unmet = 0 or n.bad), '{}') as wrong
from (select id, unmet from builds where phase = 'waiting' and state = 'waiting' and id > $1 order by id limit $2) s
cross join lateral (
    select count(*) filter (where d.status <> 0)::integer as unmet, coalesce(bool_or(d.status > 0), false) as bad
    from build_dependencies e
    join builds d on d.id = e.dependency_id
    where e.build_id = s.id
) n
