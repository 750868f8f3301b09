-- Builds with the derivation that their attempts use, those that attempts have failed by, and what a worker must have.
-- $1 build ids
select b.id, b.derivation_id, l.store_directory, l.system, l.features,
       array(
           select distinct a.derivation_id
           from attempts a
           where a.build_id = b.id and a.class not in ('succeeded', 'canceled', 'superseded', 'declined')
       ) as failed
from builds b
join lanes l on l.id = b.lane_id
where b.id = any ($1::bigint[])
