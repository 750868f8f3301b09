-- How many builds wait, counted up to $1: by builds_queue from its end, as what was given out lately has left entries at its beginning.
select count(*) as builds
from (select from builds where phase in ('ready', 'deferred', 'waiting') order by urgency desc, created_at desc, id desc limit $1) b
