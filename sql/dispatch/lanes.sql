-- All lanes, with what their specifications may use.
select l.id as lane_id, l.specification_id, l.store_directory, l.system, l.features, s.shares
from lanes l
join specifications s on s.id = l.specification_id
