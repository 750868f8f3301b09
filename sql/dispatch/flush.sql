-- Waits until all that was committed before is on the disk: a message to nobody is the least that has to be written for that.
select pg_logical_emit_message(true, 'hauberk', '')
