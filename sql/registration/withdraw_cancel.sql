-- Builds that operators have canceled and that an evaluation now wants: what has not stopped yet need not.
-- $1 build ids
with locked as (
    select id from builds
    where id = any ($1::bigint[]) and cancel_requested_at is not null and status < 0
    order by id for no key update
)
update builds b set cancel_requested_at = null from locked where b.id = locked.id
