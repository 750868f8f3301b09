-- What is ready for the same workers as a ready build, by specification: what goes before it (counted up to $6), and whether there is
-- anything as urgent at all. Each kind of what goes before is a range of the index that the lanes are read by, so that a queue of
-- equals is not walked through. All say that they are read in its order: else the planner, which believes that what is asked for lies everywhere,
-- would read the table from its beginning, or, where the step is equal and not in two halves so, the primary key.
-- $1 build id, $2 store directory, $3 system, $4 urgency, $5 specification, $6 how many at most, $7 the step of its path
select l.specification_id, s.name as specification, s.shares, sum(more.builds)::bigint as builds, bool_or(alike.there) as contends
from lanes l
join specifications s on s.id = l.specification_id
cross join lateral (
    select count(*) as builds
    from (
        (select o.id from builds o where o.lane_id = l.id and o.phase = 'ready' and o.urgency < $4
         order by o.urgency, o.path_step desc, o.id
         limit $6)
      union all
        (select o.id from builds o
         where l.specification_id = $5 and o.lane_id = l.id and o.phase = 'ready' and o.urgency = $4 and o.path_step > $7
         order by o.path_step desc, o.id
         limit $6)
      union all
        (select o.id from builds o
         where l.specification_id = $5 and o.lane_id = l.id and o.phase = 'ready' and o.urgency = $4 and o.path_step <= $7
           and o.path_step >= $7 and o.id < $1
         order by o.path_step desc, o.id
         limit $6)
    ) o
) more
cross join lateral (
    select exists (select from (select from builds o where o.lane_id = l.id and o.phase = 'ready' and o.urgency = $4
                                order by o.path_step desc, o.id limit 1) o) as there
) alike
where l.store_directory = $2 and l.system in ($3, 'builtin')
group by l.specification_id, s.name, s.shares
