-- How builds stand, without waiting for anybody.
select id, state, priority, unmet, failed_build_id from builds where id = any ($1::bigint[])
