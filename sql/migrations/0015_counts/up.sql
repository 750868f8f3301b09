-- What costs too much to be counted whenever somebody asks: the servers write it down now and then.

-- What workers have in their slots, by each start of a server: attempts, and whose they are (parallel). Whoever counted the open attempts
-- would walk over the index entries of all that ended lately.
create table seats (
    epoch    bigint      primary key references server_epochs on delete cascade,
    attempts bigint[]    not null,
    workers  integer[]   not null,
    at       timestamptz not null default now()
);

-- How many builds of which lane wait in which state (parallel), if they are many. One row.
create table queue_counts (
    one        boolean     primary key default true check (one),
    lanes      integer[]   not null,
    states     text[]      not null,
    builds     bigint[]    not null,
    counted_at timestamptz not null default now()
);
