-- Tells the dependents of builds that have just succeeded. A statement of its own, after the one that made them succeed: only
-- so does it see the edges of an evaluation that was published meanwhile.
-- `offset 0` keeps the planner on the index by dependency: made while there are no edges, another plan reads all of them.
-- $1 build ids
with met as (
    select d.build_id, count(*)::integer as n
    from unnest($1::bigint[]) as done (id)
    cross join lateral (select e.build_id from build_dependencies e where e.dependency_id = done.id offset 0) d
    group by d.build_id
), locked as (
    select b.id, met.n from met join builds b on b.id = any (array[met.build_id]) order by b.id + 0 for no key update of b
), told as (
    update builds b
    set unmet = greatest(0, b.unmet - locked.n),
        state = case when b.state = 'waiting' and b.unmet <= locked.n then 'ready' else b.state end,
        ready_at = case when b.unmet <= locked.n then coalesce(b.ready_at, now()) end
    from locked
    where b.id = any (array[locked.id])
    returning b.id, b.state, b.unmet, b.lane_id, b.other_lanes, b.urgency, b.path_step, b.expected_ms, b.ready_at
)
select id as build_id, state, lane_id, other_lanes, urgency, path_step, expected_ms,
          coalesce((extract(epoch from now() - ready_at) * 1000)::bigint, 0) as age_ms
from told where state = 'ready' and unmet = 0
