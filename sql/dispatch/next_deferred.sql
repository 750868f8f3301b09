-- Seconds until the next deferred build may be tried, $1 (the longest delay) at most; no row without one.
select greatest(0, least($1, extract(epoch from min(not_before) - now())::double precision)) as seconds
from builds where phase = 'deferred' having count(*) > 0
