-- Builds of which more than one result counted in a generation.
select distinct build_id
from attempts
where class = 'succeeded' and kind <> 'check'
group by build_id, generation
having count(*) > 1
order by build_id
