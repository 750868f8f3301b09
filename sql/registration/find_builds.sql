-- How builds stand, without waiting for anybody.
select id, state, priority, unmet, failed_build_id, emergency, priority_asked, remaining_path, expected_ms, name, system, derivation_id,
       collected_at is not null as collected
from builds where id = any ($1::bigint[])
