-- Jobs that could not be evaluated or registered, and why.
insert into job_errors (evaluation_id, name, message)
select $1, name, message from unnest($2::text[], $3::text[]) as e (name, message)
on conflict (evaluation_id, name) do nothing
