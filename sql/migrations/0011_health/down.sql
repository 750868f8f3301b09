alter table workers drop column shortage;
alter table workers drop column set_aside_at;
