-- Open attempts of starts that are over, of whatever server, become this one's, as long as this one is not over itself. Those that are being
-- written to are left to the next time.
-- $1 epoch
with open as (
    select a.id
    from attempts a
    join server_epochs e on e.epoch = a.epoch
    where a.ended_at is null and e.ended_at is not null
      and exists (select from server_epochs where epoch = $1 and ended_at is null)
    order by a.id
    for update of a skip locked
)
update attempts a set epoch = $1 from open where a.id = open.id
returning a.id as attempt_id
