-- Builds that no worker has, most urgent first, after ($1, $2, $3). One range of builds_queue.
select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at, s.name as specification,
       b.unmet, b.not_before
  from builds b
  join lanes l on l.id = b.lane_id
  join specifications s on s.id = l.specification_id
 where b.phase in ('ready', 'deferred', 'waiting')
   and (b.urgency, b.created_at, b.id) > ($1, $2, $3)
 order by b.urgency, b.created_at, b.id
 limit $4;
