-- The queue for programs: what runs, what is given to a worker, then what waits, most urgent first.
(select id, 0 as rank, priority, created_at from builds where status = -1 order by priority, created_at, id limit $1)
union all
(select id, 1, priority, created_at from builds where status = -3 order by priority, created_at, id limit $1)
union all
(select id, 2, priority, created_at from builds where status = -2 and state <> 'staged'
  order by priority, created_at, id limit $1)
order by rank, priority, created_at, id
limit $1;
