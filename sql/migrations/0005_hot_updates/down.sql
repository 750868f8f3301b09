alter table attempt_outputs add column fetched_at timestamptz;
update attempt_outputs o set fetched_at = a.ended_at from attempts a where a.id = o.attempt_id and a.class = 'succeeded';

delete from attempt_outputs o where not exists (select from attempts a where a.id = o.attempt_id);
delete from attempts a
where not exists (select from builds b where b.id = a.build_id) or not exists (select from workers w where w.id = a.worker_id);
alter table attempt_outputs
    add constraint attempt_outputs_attempt_id_fkey foreign key (attempt_id) references attempts on delete cascade;
alter table attempts
    add constraint attempts_build_id_fkey foreign key (build_id) references builds on delete cascade,
    add constraint attempts_worker_id_fkey foreign key (worker_id) references workers;

alter table outputs reset (fillfactor);
alter table attempts set (fillfactor = 85);
create index attempts_fetch on attempts (fetch_after, id) where built_at is not null and ended_at is null;

alter table builds set (fillfactor = 85);
drop index builds_ready, builds_deferred, builds_queue, builds_open, builds_finished, builds_waiting;
alter table builds drop column phase;
create index builds_ready on builds (lane_id, priority, remaining_path desc, id) where state = 'ready';
create index builds_deferred on builds (not_before, id) where state = 'deferred';
create index builds_queue on builds (status desc, priority, created_at, id) where status < 0;
create index builds_waiting on builds (id) where state = 'waiting';
drop index builds_cancel;
create index builds_cancel on builds (id) where cancel_requested_at is not null and status < 0;
create index builds_finished on builds (finished_at desc, id desc) where status >= 0;
