-- Which of these evaluations operators have canceled.
select id from evaluations where id = any ($1::bigint[]) and canceled_at is not null
