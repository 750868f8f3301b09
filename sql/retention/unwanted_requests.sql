-- What no evaluation that is to be kept wants any more is not waited for.
with policies as (
    select id, (definition ->> 'keep-evaluations')::bigint as evaluations, (definition ->> 'keep-days')::integer as days
    from specifications
), ranked as (
    select id, specification_id, created_at, row_number() over (partition by specification_id order by id desc) as place
    from evaluations
    where status = 0 and canceled_at is null
), kept as (
    select r.id, r.specification_id
    from ranked r
    join policies p on p.id = r.specification_id
    where r.place <= greatest(coalesce(p.evaluations, 1), 1)
       or p.evaluations is null and p.days is null or r.created_at > now() - make_interval(days => p.days)
)
update product_requests r
set state = 'removed', message = null, changed_at = now()
where r.state in ('wanted', 'missing', 'refused')
  and not exists (
      select from jobs j join kept k on k.id = j.evaluation_id
      where j.build_id = r.build_id and k.specification_id = r.specification_id
  )
