-- One at a time learns; whoever finds another at it leaves it to that one.
select finished_at from durations_known for update skip locked
