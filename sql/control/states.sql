-- $1 build ids
select id as build_id, state from builds where id = any ($1::bigint[])
