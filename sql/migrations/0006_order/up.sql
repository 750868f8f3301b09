-- What the order of dispatch rests on.

-- What operators want of a build. `emergency` and `priority` are what counts, inherited by what the build needs; the other two are what
-- was asked for this build itself.
alter table builds
    add column emergency boolean not null default false,
    add column emergency_asked boolean not null default false,
    add column priority_asked smallint check (priority_asked between 0 and 99),
    -- Before everything -1, else the priority: what indexes and the dispatcher go by.
    add column urgency smallint not null generated always as (case when emergency then -1 else priority end) stored,
    -- When it waited for nothing but a worker for the first time in its generation: what ageing counts from.
    add column ready_at timestamptz,
    -- Milliseconds it should take by what is known of builds like it; 0 = nothing is known.
    add column expected_ms bigint not null default 0 check (expected_ms >= 0),
    -- The lanes of other specifications that want it as well.
    add column other_lanes integer[];
update builds set ready_at = created_at where state in ('ready', 'deferred');

-- An operator puts all that it wants before everything.
alter table evaluations add column emergency boolean not null default false;

-- The lane on whose turn it was given out: its specification pays for it.
alter table attempts add column lane_id integer;
-- What the farm did in the last days, for the shares; next to nothing to keep, as the column never changes.
create index attempts_assigned on attempts using brin (assigned_at) with (pages_per_range = 32);

drop index builds_ready, builds_queue;
create index builds_ready on builds (lane_id, urgency, remaining_path desc, id) where phase = 'ready';
-- What waits longest in each lane.
create index builds_ready_age on builds (lane_id, ready_at, id) where phase = 'ready';
-- What several specifications want, whatever lane it was recorded in.
create index builds_ready_shared on builds (urgency, remaining_path desc, id) where phase = 'ready' and other_lanes is not null;
create index builds_queue on builds (urgency, created_at, id) where phase in ('ready', 'deferred', 'waiting');

-- How long builds took: the last few of each kind, in milliseconds, the newest last. `likeness` is a name, whole or cut at a part of its
-- version, the end of a name, or empty for all of the system.
create table durations (
    system   text     not null,
    scope    text     not null check (scope in ('name', 'kind', 'system')),
    likeness text     not null,
    recent   bigint[] not null,
    primary key (system, scope, likeness)
);
-- The end of the last build that they know of. One row.
create table durations_known (
    finished_at timestamptz not null,
    build_id    bigint      not null
);
insert into durations_known values ('-infinity', 0);

-- What specifications have used, as each server counts it; written now and then, for whoever asks why a build waits.
create table specification_usage (
    server_id        integer          not null references servers on delete cascade,
    specification_id integer          not null references specifications on delete cascade,
    -- Slot-seconds, decayed to `at`.
    slot_seconds     double precision not null,
    at               timestamptz      not null default now(),
    primary key (server_id, specification_id)
);
