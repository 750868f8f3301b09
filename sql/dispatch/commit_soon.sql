-- The transaction may be committed before it is on the disk.
select set_config('synchronous_commit', 'off', true)
