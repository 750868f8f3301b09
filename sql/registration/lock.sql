-- One evaluation is published at a time. The number is arbitrary, and nothing else takes it.
select pg_advisory_xact_lock(4826391002)
