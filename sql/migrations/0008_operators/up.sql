-- Which builds a line of the audit was about, so that a build's page can say who canceled it, whatever was named to do so.
create table audit_builds (
    build_id bigint not null,
    audit_id bigint not null,
    primary key (build_id, audit_id)
);
-- What was done to an evaluation, a worker or a specification, newest first.
create index audit_subject on audit (subject, id desc);
-- An operator wants what this evaluation saw evaluated again.
alter table evaluations add column retry_requested_at timestamptz;
