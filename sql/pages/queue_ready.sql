-- Builds that only lack a free slot, most urgent first, after ($1, $2, $3): the heads of all lanes, each read from builds_ready.
select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at, s.name as specification,
       b.unmet, b.not_before, b.path_step
  from lanes l
  join specifications s on s.id = l.specification_id
 cross join lateral (
       select r.*
         from builds r
        where r.lane_id = l.id and r.phase = 'ready' and r.urgency >= $1
          and (r.urgency > $1 or r.path_step < $2 or (r.path_step = $2 and r.id > $3))
        order by r.urgency, r.path_step desc, r.id
        limit $4) b
 order by b.urgency, b.path_step desc, b.id
 limit $4;
