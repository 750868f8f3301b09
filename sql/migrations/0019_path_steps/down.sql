drop index builds_ready, builds_ready_shared;
alter table builds drop column path_step;
drop function path_step;
create index builds_ready on builds (lane_id, urgency, remaining_path desc, id) where phase = 'ready';
create index builds_ready_shared on builds (urgency, remaining_path desc, id) where phase = 'ready' and other_lanes is not null;
