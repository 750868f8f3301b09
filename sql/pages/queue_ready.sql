-- Builds that only lack a free slot, most urgent first, after ($1, $2, $3): the heads of all lanes, each read from builds_ready.
select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.created_at, b.started_at, b.finished_at, s.name as specification,
       b.unmet, b.not_before, b.remaining_path
  from lanes l
  join specifications s on s.id = l.specification_id
 cross join lateral (
       select r.*
         from builds r
        where r.lane_id = l.id and r.phase = 'ready' and r.urgency >= $1
          and (r.urgency > $1 or r.remaining_path < $2 or (r.remaining_path = $2 and r.id > $3))
        order by r.urgency, r.remaining_path desc, r.id
        limit $4) b
 order by b.urgency, b.remaining_path desc, b.id
 limit $4;
