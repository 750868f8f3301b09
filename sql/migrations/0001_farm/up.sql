-- The farm's tables. Names follow Cuirass where it has the thing.
--
-- Conventions: times are timestamptz and come from the database's clock alone; enumerations are text with a CHECK, so that a new
-- value needs no type change under running programs; store paths are full paths; hashes are raw bytes.
-- Rows of several builds are locked in the order of their id, always.

-- What to watch and build. The definition is the specification as its file gave it, parsed and normalised.
create table specifications (
    id          integer generated always as identity primary key,
    name        text        not null unique,
    definition  jsonb       not null,
    -- 0 is the most urgent, 9 the least.
    priority    smallint    not null default 9 check (priority between 0 and 9),
    -- Weight in the fair share between specifications.
    shares      integer     not null default 100 check (shares > 0),
    enabled     boolean     not null default true,
    public      boolean     not null default true,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    -- The last look at the repositories, and what went wrong with it.
    checked_at  timestamptz,
    check_error text
);

-- One run of the evaluator on a set of checkouts.
create table evaluations (
    id               bigint generated always as identity primary key,
    specification_id integer     not null references specifications on delete cascade,
    -- started -1, succeeded 0, failed 1, aborted 2
    status           smallint    not null default -1 check (status between -1 and 2),
    created_at       timestamptz not null default now(),
    checked_out_at   timestamptz,
    finished_at      timestamptz,
    -- Why it failed or was aborted, in a line; the whole story is in its log.
    message          text,
    log_path         text
);
create index on evaluations (specification_id, id desc);
create index on evaluations (id) where status = -1;

-- A channel or input at a revision, as one evaluation saw it.
create table checkouts (
    evaluation_id    bigint      not null references evaluations on delete cascade,
    input            text        not null,
    specification_id integer     not null references specifications on delete cascade,
    url              text        not null,
    branch           text        not null,
    revision         text        not null,
    directory        text        not null,
    created_at       timestamptz not null default now(),
    primary key (evaluation_id, input)
);
create index on checkouts (specification_id, input, evaluation_id desc);

-- A lane is what dispatch chooses between: builds of one specification that the same workers can run.
create table lanes (
    id               integer generated always as identity primary key,
    specification_id integer not null references specifications on delete cascade,
    store_directory  text    not null,
    system           text    not null,
    -- Sorted, without duplicates.
    features         text[]  not null default '{}',
    unique (specification_id, store_directory, system, features)
);

-- The will to have a set of output paths, shared by every job, evaluation and derivation that wants the same ones.
create table builds (
    id              bigint generated always as identity primary key,
    -- The lane it waits in: that of the specification that wanted it first.
    lane_id         integer  not null references lanes,
    -- The derivation that attempts use.
    derivation_id   bigint   not null,
    -- The evaluation that wanted it first.
    evaluation_id   bigint,
    -- Name and version, as the derivation has them.
    name            text     not null,
    system          text     not null,
    -- 0 is the most urgent, 99 the least: 10 x specification + job, the best of all that wait for it.
    priority        smallint not null default 99 check (priority between 0 and 99),
    -- Milliseconds of the longest chain of builds that wait for this one, itself included; 0 = not known.
    remaining_path  bigint   not null default 0,
    -- staged: recorded by an evaluation that is not published. held: an operator keeps it back. waiting: for `unmet` dependencies.
    -- deferred: until `not_before`. ready: for a worker. assigned, running: has an open attempt. built: on the worker's word.
    -- fetching: its outputs are under way. The rest is final.
    state           text     not null default 'staged' check (state in (
                        'staged', 'held', 'waiting', 'deferred', 'ready', 'assigned', 'running', 'built', 'fetching',
                        'succeeded', 'failed', 'failed_dependency', 'failed_other', 'canceled')),
    -- The state as Cuirass and Hydra number it in their API.
    status          smallint not null generated always as (case state
                        when 'assigned' then -3
                        when 'running' then -1 when 'built' then -1 when 'fetching' then -1
                        when 'succeeded' then 0 when 'failed' then 1 when 'failed_dependency' then 2
                        when 'failed_other' then 3 when 'canceled' then 4
                        else -2 end) stored,
    -- Grows when a final build is revived: what was decided about an older generation changes nothing any more.
    generation      integer  not null default 1,
    -- Dependencies that have not succeeded. Kept by sets, see sql/builds/.
    unmet           integer  not null default 0 check (unmet >= 0),
    -- Tries that failed by the farm's fault in this generation.
    farm_faults     smallint not null default 0,
    not_before      timestamptz,
    -- Seconds; 0 = no limit.
    timeout         integer  not null default 0 check (timeout >= 0),
    max_silent      integer  not null default 0 check (max_silent >= 0),
    -- The attempt that runs now or that decided the state.
    attempt_id      bigint,
    -- For failed_dependency: the build that failed in the first place.
    failed_build_id bigint,
    public          boolean  not null default true,
    created_at      timestamptz not null default now(),
    started_at      timestamptz,
    finished_at     timestamptz
) with (fillfactor = 85);
-- The head of each lane: what the server's window is filled from.
create index builds_ready on builds (lane_id, priority, remaining_path desc, id) where state = 'ready';
create index builds_deferred on builds (not_before, id) where state = 'deferred';
-- The queue as people and programs page through it: started, scheduled, submitted; then by urgency and age.
create index builds_queue on builds (status desc, priority, created_at, id) where status < 0;
create index builds_finished on builds (finished_at desc, id desc) where status >= 0;
create index builds_name on builds (name text_pattern_ops, id desc);

-- A .drv file. Several can give the same outputs; the first that was seen is the one that gets built.
create table derivations (
    id       bigint generated always as identity primary key,
    path     text   not null unique,
    build_id bigint not null references builds on delete cascade
);
create index on derivations (build_id);

-- A path that a build gives. Once it is in the farm's cache or store, what the farm vouches for is here too.
create table outputs (
    path      text   primary key,
    build_id  bigint not null references builds on delete cascade,
    name      text   not null,
    -- SHA-256 of the nar, and its size in bytes; null until the farm has it.
    nar_hash  bytea  check (octet_length(nar_hash) = 32),
    nar_size  bigint,
    -- The server that holds the nar.
    server_id integer
);
create index on outputs (build_id);

-- build_id needs dependency_id. No foreign keys: they cost four times the insert.
create table build_dependencies (
    build_id      bigint not null,
    dependency_id bigint not null,
    primary key (build_id, dependency_id)
);
create index on build_dependencies (dependency_id, build_id);

-- A named result of an evaluation.
create table jobs (
    evaluation_id bigint   not null references evaluations on delete cascade,
    name          text     not null,
    build_id      bigint   not null references builds on delete cascade,
    derivation_id bigint   not null,
    -- 0 is the most urgent, 9 the least.
    priority      smallint not null default 9 check (priority between 0 and 9),
    -- unknown -1, new success 0, new failure 1, still succeeding 2, still failing 3
    weather       smallint not null default -1 check (weather between -1 and 3),
    primary key (evaluation_id, name)
);
create index on jobs (build_id, evaluation_id desc);
create index on jobs (name, evaluation_id desc);

-- A job of an evaluation that gave no build, and why: it does not evaluate, or is of a kind that is refused.
create table job_errors (
    evaluation_id bigint not null references evaluations on delete cascade,
    name          text   not null,
    message       text   not null,
    primary key (evaluation_id, name)
);

-- A remote-server, across its restarts.
create table servers (
    id              integer generated always as identity primary key,
    name            text    not null unique,
    host            text    not null,
    backend_port    integer not null,
    log_port        integer not null,
    -- Where its nars and logs are served, if it publishes.
    publish_url     text,
    -- CURVE public key, Z85; null when it runs without encryption.
    public_key      text,
    version         text    not null
);

-- Each start of a server. The beat stands still when the server does; a peer then takes its attempts over.
create table server_epochs (
    epoch      bigint generated always as identity primary key,
    server_id  integer     not null references servers on delete cascade,
    beat       bigint      not null default 0,
    started_at timestamptz not null default now(),
    beat_at    timestamptz not null default now(),
    ended_at   timestamptz
);
create index on server_epochs (server_id, epoch desc);

-- An enrolled remote-worker. The keys are fixed at enrolment; the rest is what it last said of itself.
create table workers (
    id              integer generated always as identity primary key,
    name            text        not null unique,
    -- CURVE public key, Z85; null for a worker that joined without encryption.
    public_key      text        unique,
    -- The key its results must be signed with: NAME:BASE64 for Nix, an S-expression for Guix. Null until first sight
    -- for a worker that joined without encryption.
    signing_key     text,
    enrolled_at     timestamptz not null default now(),
    enrolled_by     text        not null default '',
    revoked_at      timestamptz,
    paused          boolean     not null default false,
    pause_reason    text,
    machine         text        not null default '',
    address         text        not null default '',
    version         text        not null default '',
    daemon          text        not null default '',
    store_directory text        not null default '',
    systems         text[]      not null default '{}',
    features        text[]      not null default '{}',
    slots           integer     not null default 0,
    publish_url     text,
    -- The server start that holds its session; null when it is not connected.
    epoch           bigint,
    connected_at    timestamptz,
    last_seen_at    timestamptz,
    load            jsonb
);

-- One try of a build on one worker. All are kept.
create table attempts (
    id            bigint generated always as identity primary key,
    build_id      bigint   not null references builds on delete cascade,
    derivation_id bigint   not null,
    generation    integer  not null,
    -- 1, 2, 3 ... of its build.
    number        integer  not null,
    kind          text     not null check (kind in ('first', 'retry', 'check')),
    worker_id     integer  not null references workers,
    session       bigint   not null,
    -- The server start that owns it: every later write names it.
    epoch         bigint   not null,
    assigned_at   timestamptz not null default now(),
    started_at    timestamptz,
    -- The worker said that it succeeded; the outputs are not here yet.
    built_at      timestamptz,
    ended_at      timestamptz,
    -- How it ended; null while it is open. See Outcome in proto/ and hauberk-server.
    class         text check (class in (
                      'succeeded',
                      'build_failed', 'timed_out', 'silent', 'log_limit', 'output_limit', 'not_deterministic',
                      'missing_inputs', 'transfer', 'disk_full', 'out_of_memory', 'daemon', 'worker_lost', 'declined',
                      'canceled', 'superseded')),
    exit_status   integer,
    message       text,
    origin        text check (origin in ('built', 'already_valid')),
    -- Milliseconds, by the worker's clock.
    inputs_ms     bigint,
    build_ms      bigint,
    peak_memory   bigint,
    -- The server that holds the log, and the file's path below that server's log directory.
    log_server_id integer,
    log_path      text,
    log_bytes     bigint,
    log_complete  boolean  not null default false,
    -- Fetching of the outputs: tries so far, when the next may begin, why the last failed.
    fetch_tries   smallint not null default 0,
    fetch_after   timestamptz,
    fetch_error   text,
    check ((class is null) = (ended_at is null))
) with (fillfactor = 85);
create index on attempts (build_id, number);
-- A build has one open attempt at most, checks excepted.
create unique index attempts_one_open on attempts (build_id) where ended_at is null and kind <> 'check';
create index attempts_open on attempts (epoch, worker_id) where ended_at is null;
create index attempts_fetch on attempts (fetch_after, id) where built_at is not null and ended_at is null;
create index on attempts (worker_id, id desc);

-- What an attempt gave.
create table attempt_outputs (
    attempt_id bigint not null references attempts on delete cascade,
    name       text   not null,
    path       text   not null,
    nar_hash   bytea  not null check (octet_length(nar_hash) = 32),
    nar_size   bigint not null check (nar_size >= 0),
    "references" text[] not null default '{}',
    fetched_at timestamptz,
    primary key (attempt_id, name)
);

-- Who did what to the farm, and when.
create table audit (
    id      bigint generated always as identity primary key,
    at      timestamptz not null default now(),
    who     text        not null,
    action  text        not null,
    subject text        not null,
    detail  jsonb
);
create index on audit (at desc);
