-- The life of a build is a handful of updates of its row and its attempt's. They cost what their indexes cost: an update is cheap (HOT)
-- as long as no column changes that stands in an index or its predicate, and the page has room for another version.

-- Where a build stands, coarse enough to be the same from its assignment to its end. Indexes ask for this, not for `state` or `status`.
-- ready, deferred; waiting (also for an operator); open: an attempt has it; null: final, or not published.
alter table builds add column phase text generated always as (case state
    when 'ready' then 'ready' when 'deferred' then 'deferred' when 'waiting' then 'waiting' when 'held' then 'waiting'
    when 'assigned' then 'open' when 'running' then 'open' when 'built' then 'open' when 'fetching' then 'open' end) stored;
drop index builds_ready, builds_deferred, builds_queue, builds_finished;
-- The head of each lane: what the server's window is filled from.
create index builds_ready on builds (lane_id, priority, remaining_path desc, id) where phase = 'ready';
create index builds_deferred on builds (not_before, id) where phase = 'deferred';
-- The queue as people and programs page through it, by urgency and age.
create index builds_queue on builds (priority, created_at, id) where phase in ('ready', 'deferred', 'waiting');
-- What workers have; of a size with the farm's slots.
create index builds_open on builds (id) where phase = 'open';
create index builds_finished on builds (finished_at desc, id desc) where finished_at is not null;
drop index builds_waiting;
-- What waits, in slices, for whoever recounts it.
create index builds_waiting on builds (id) where phase = 'waiting';
drop index builds_cancel;
create index builds_cancel on builds (id) where cancel_requested_at is not null;
alter table builds set (fillfactor = 70);

-- Nothing looks for fetches by the time of their next try.
drop index attempts_fetch;
alter table attempts set (fillfactor = 60);
alter table outputs set (fillfactor = 80);

-- No foreign keys on what is written for each build, as on the edges: each costs a look and a lock for every row.
alter table attempts drop constraint attempts_build_id_fkey, drop constraint attempts_worker_id_fkey;
alter table attempt_outputs drop constraint attempt_outputs_attempt_id_fkey;

-- That the farm has the outputs of an attempt is what its class says.
alter table attempt_outputs drop column fetched_at;
