-- One worker is set aside at a time, so that two servers do not set the last two of a system aside.
select pg_advisory_xact_lock(4826391003)
