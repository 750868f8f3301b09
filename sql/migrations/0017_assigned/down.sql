create index attempts_assigned on attempts using brin (assigned_at) with (pages_per_range = 32);
