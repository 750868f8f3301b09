-- A start of a server is over; its workers are connected to nothing until they find another.
-- $1 epoch
with left_alone as (
    update workers set epoch = null where epoch = $1
)
update server_epochs set ended_at = now() where epoch = $1 and ended_at is null
