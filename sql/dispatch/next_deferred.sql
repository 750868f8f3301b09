-- Seconds until the next deferred build may be tried; no row without one.
select greatest(0, extract(epoch from min(not_before) - now()))::double precision as seconds
from builds where phase = 'deferred' having count(*) > 0
