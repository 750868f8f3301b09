-- What ended lately, by state.
select state, count(*) filter (where finished_at > now() - interval '1 minute') as minute, count(*) as ten_minutes
from builds
where finished_at > now() - interval '10 minutes'
group by state
