alter table workers drop column draining;
alter table evaluations drop column canceled_at;
drop index builds_cancel;
alter table builds drop column cancel_requested_at;
-- The older schema has no room for two open attempts of a build.
update attempts set ended_at = now(), class = 'superseded' where late and ended_at is null;
drop index attempts_one_open;
alter table attempts drop column late;
create unique index attempts_one_open on attempts (build_id) where ended_at is null and kind <> 'check';
