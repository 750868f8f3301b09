alter table builds drop column collected_at;
