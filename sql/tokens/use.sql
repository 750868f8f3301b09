-- A worker was enrolled by a token.
-- $1 token id, $2 worker id
with used as (
    update enrolment_tokens set used = used + 1 where id = $1 returning id, systems
)
update workers w set token_id = used.id, allowed_systems = used.systems from used where w.id = $2
