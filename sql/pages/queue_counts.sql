-- How many unfinished builds are in which state, by builds_queue.
select state, count(*) as builds
  from builds
 where status < 0
 group by state;
