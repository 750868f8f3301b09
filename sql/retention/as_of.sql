-- Changes whenever an evaluation is published.
select count(*) as published from evaluations where status = 0
