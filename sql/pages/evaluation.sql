-- One evaluation, and its neighbours in the same specification.
select e.id, e.specification_id, s.name as specification, e.status, e.created_at, e.checked_out_at, e.finished_at, e.message,
       e.log_path,
       (select p.id from evaluations p where p.specification_id = e.specification_id and p.id < e.id
         order by p.id desc limit 1) as previous_id,
       (select n.id from evaluations n where n.specification_id = e.specification_id and n.id > e.id
         order by n.id limit 1) as next_id
  from evaluations e
  join specifications s on s.id = e.specification_id
 where e.id = $1;
