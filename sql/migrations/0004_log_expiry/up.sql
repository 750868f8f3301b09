-- When the log of an attempt was removed because it had been kept long enough; null while it is there, or if there was none.
alter table attempts add column log_expired_at timestamptz;
