-- Only the server start that has workers can say that they left. Locked in the order of the id.
-- $1 ids, $2 epoch
with gone as (
    select id from workers where id = any($1::integer[]) and epoch = $2 order by id for no key update
)
update workers w set epoch = null, last_seen_at = now() from gone where w.id = gone.id
