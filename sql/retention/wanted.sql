-- Outputs of the jobs of evaluations that specifications want kept, and of all that those were built from.
-- $1 true: of the last evaluations only, at least one of each specification; false: of all that are to be kept
with recursive policies as (
    select id, (definition ->> 'keep-evaluations')::bigint as evaluations, (definition ->> 'keep-days')::integer as days
    from specifications
), ranked as (
    select id, specification_id, created_at, row_number() over (partition by specification_id order by id desc) as place
    from evaluations
    where status = 0 and canceled_at is null
), kept as (
    select r.id
    from ranked r
    join policies p on p.id = r.specification_id
    where r.place <= greatest(coalesce(p.evaluations, 1), 1)
       or not $1 and (p.evaluations is null and p.days is null or r.created_at > now() - make_interval(days => p.days))
), reached (id) as (
    select j.build_id from kept k join jobs j on j.evaluation_id = k.id
  union
    select d.dependency_id from reached r join build_dependencies d on d.build_id = r.id
)
select o.path from reached r join outputs o on o.build_id = r.id
