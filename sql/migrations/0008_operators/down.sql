alter table evaluations drop column retry_requested_at;
drop index audit_subject;
drop table audit_builds;
