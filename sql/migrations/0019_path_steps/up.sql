-- The order goes by steps of the remaining path, two to the doubling, and among equals by the order of recording. What is finer than a step
-- says little, as estimates are wrong by more, and has the builds of a lane given out in an order that jumps about in tables and indexes.
-- The path itself stays exact: what is rounded adds up along chains. This rewrites the table of builds with its indexes.

-- The step of a path of so many milliseconds, from 0 to 125: 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32 … ms begin one. The path is halved until two
-- binary digits are left, and each halving counts for two steps. `hauberk_order::PathStep` is the same. A function, as the expressions of
-- generated columns are read by every statement that writes a build.
create function path_step(path bigint) returns smallint language sql immutable parallel safe as $$
    select ((path >> greatest(length(ltrim(path::bit(64)::text, '0')) - 2, 0))
            + 2 * greatest(length(ltrim(path::bit(64)::text, '0')) - 2, 0))::smallint
$$;
drop index builds_ready, builds_ready_shared;
alter table builds add column path_step smallint not null generated always as (path_step(remaining_path)) stored;

-- The head of each lane: what the server's window is filled from.
create index builds_ready on builds (lane_id, urgency, path_step desc, id) where phase = 'ready';
-- What several specifications want, whatever lane it was recorded in.
create index builds_ready_shared on builds (urgency, path_step desc, id) where phase = 'ready' and other_lanes is not null;
