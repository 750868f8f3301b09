-- Ends a start of another server that has not counted any further. Its workers are connected to nothing until they find another.
-- $1 epoch, $2 its beat
with over as (
    update server_epochs set ended_at = now() where epoch = $1 and beat = $2 and ended_at is null returning epoch
), left_alone as (
    update workers w set epoch = null from over where w.epoch = over.epoch
)
select epoch from over
