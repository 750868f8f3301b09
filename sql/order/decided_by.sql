-- The unfinished jobs of an evaluation that no other one, which is not canceled, wants as urgently.
-- $1 evaluation id
select b.id as build_id
from evaluations v
join specifications s on s.id = v.specification_id
join jobs j on j.evaluation_id = v.id
cross join lateral (select b.id from builds b where b.id = j.build_id and b.status < 0 offset 0) b
where v.id = $1
  and (v.emergency or not exists (
      select
      from (select evaluation_id, priority from jobs o where o.build_id = b.id offset 0) o
      join evaluations e on e.id = o.evaluation_id and e.canceled_at is null
      join specifications t on t.id = e.specification_id
      where e.id <> v.id and 10 * t.priority + o.priority <= 10 * s.priority + j.priority
  ))
