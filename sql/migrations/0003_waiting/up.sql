-- What waits, in slices, for whoever recounts it.
create index builds_waiting on builds (id) where state = 'waiting';
