-- One build with all that its page tells in a line.
select b.id, b.name, b.system, b.state, b.priority, b.urgency, b.generation, b.unmet, b.farm_faults, b.not_before, b.timeout, b.max_silent,
       b.attempt_id, b.failed_build_id, b.created_at, b.started_at, b.finished_at, b.lane_id, b.remaining_path,
       l.store_directory, l.features, s.name as specification,
       d.path as derivation, f.name as failed_build_name
  from builds b
  join lanes l on l.id = b.lane_id
  join specifications s on s.id = l.specification_id
  left join derivations d on d.id = b.derivation_id
  left join builds f on f.id = b.failed_build_id
 where b.id = $1;
