alter table workers drop column token_id, drop column allowed_systems;
drop table enrolment_tokens;
