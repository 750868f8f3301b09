-- The queue for programs: what runs, what is given to a worker, then what waits, most urgent first.
(select id, case status when -1 then 0 else 1 end as rank, urgency, created_at from builds where phase = 'open'
  order by rank, urgency, created_at, id limit $1)
union all
(select id, 2, urgency, created_at from builds where phase in ('ready', 'deferred', 'waiting')
  order by urgency, created_at, id limit $1)
order by rank, urgency, created_at, id
limit $1;
