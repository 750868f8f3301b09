alter table attempts drop column log_expired_at;
