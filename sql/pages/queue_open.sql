-- How many builds are with workers, by state. All of builds_open, which is of a size with the farm.
select state, count(*) as builds from builds where phase = 'open' group by state;
