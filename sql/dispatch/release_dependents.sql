-- Tells the dependents of builds that have just succeeded. A statement of its own, after the one that made them succeed: only
-- so does it see the edges of an evaluation that was published meanwhile.
-- $1 build ids
with met as (
    select d.build_id, count(*)::integer as n
    from build_dependencies d
    where d.dependency_id = any ($1::bigint[])
    group by d.build_id
), locked as (
    select b.id from builds b where b.id in (select build_id from met) order by b.id for update
), told as (
    update builds b
    set unmet = greatest(0, b.unmet - met.n),
        state = case when b.state = 'waiting' and b.unmet <= met.n then 'ready' else b.state end
    from met
    where b.id = met.build_id and b.id in (select id from locked)
    returning b.id, b.lane_id, b.priority, b.remaining_path, b.state, b.unmet
)
select id as build_id, lane_id, priority, remaining_path, state from told where state = 'ready' and unmet = 0
