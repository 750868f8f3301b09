-- How builds stand, once whoever changes them has committed; nobody changes them any more until this transaction ends.
-- They are locked in the order given.
select b.id, b.state, b.priority, b.unmet, b.failed_build_id, b.emergency, b.priority_asked, b.remaining_path, b.expected_ms,
       b.collected_at is not null as collected
from unnest($1::bigint[]) with ordinality as wanted (id, place)
join builds b on b.id = wanted.id
order by wanted.place
for no key update of b
