-- Those of these evaluations of which something may still be built. A build begins when the evaluation that made it is
-- published, so none that ended before the oldest unfinished build is needed; the last one of a specification is kept.
select e.id
from evaluations e
where e.id = any ($1::bigint[])
  and (e.finished_at is null
       or e.finished_at >= least(
           (select min(b.created_at) from builds b where b.phase in ('ready', 'deferred', 'waiting')),
           (select min(b.created_at) from builds b where b.phase = 'open'))
       or e.id = (select max(l.id) from evaluations l where l.specification_id = e.specification_id and l.status = 0))
