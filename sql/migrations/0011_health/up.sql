-- Since when the farm itself keeps work from the worker, because it failed builds that then did otherwise elsewhere; `paused` is set then,
-- and `pause_reason` tells why.
alter table workers add column set_aside_at timestamptz;
-- What the worker itself says it lacks to take work now, as free space; null: nothing.
alter table workers add column shortage text;
