-- How many unfinished builds are in which state, by builds_queue and builds_open.
select state, count(*) as builds from builds where phase in ('ready', 'deferred', 'waiting') group by state
union all
select state, count(*) from builds where phase = 'open' group by state;
