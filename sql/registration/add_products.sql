-- What a specification wants of builds. What was taken stays so; what is not here, and may be found now, is looked for again.
-- $1 specification; $2 builds, $3 output names, $4 paths, $5 types (parallel)
insert into product_requests as r (build_id, specification_id, output, path, type)
select distinct n.build_id, $1::integer, n.output, n.path, n.type
from unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) as n (build_id, output, path, type)
order by n.build_id
on conflict (build_id, specification_id, output, path, type) do update
    set state = 'wanted', message = null, generation = null, tries = 0, retry_at = null, changed_at = now()
    where r.state in ('removed', 'refused')
       or r.state = 'missing' and r.generation is distinct from (select b.generation from builds b where b.id = r.build_id)
