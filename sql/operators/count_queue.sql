-- Counts what waits, by lane and state, and writes it down; not if somebody has just done so ($1 seconds), or is about it.
with counted as (
    select lane_id, state, count(*) as builds
    from builds
    where phase in ('ready', 'deferred', 'waiting')
      and not exists (select from queue_counts where counted_at > now() - make_interval(secs => $1))
      and (select pg_try_advisory_xact_lock(4826391004))
    group by lane_id, state
)
insert into queue_counts (lanes, states, builds)
select array_agg(lane_id), array_agg(state), array_agg(builds) from counted having count(*) > 0
on conflict (one) do update
set lanes = excluded.lanes, states = excluded.states, builds = excluded.builds, counted_at = now()
