drop table specification_usage, durations_known, durations;
drop index builds_ready, builds_ready_age, builds_ready_shared, builds_queue, attempts_assigned;
alter table attempts drop column lane_id;
alter table evaluations drop column emergency;
alter table builds
    drop column urgency, drop column other_lanes, drop column expected_ms, drop column ready_at,
    drop column priority_asked, drop column emergency_asked, drop column emergency;
create index builds_ready on builds (lane_id, priority, remaining_path desc, id) where phase = 'ready';
create index builds_queue on builds (priority, created_at, id) where phase in ('ready', 'deferred', 'waiting');
