-- Evaluations of all specifications, newest first, by the primary key.
select e.id, e.specification_id, s.name as specification, e.status, e.created_at, e.checked_out_at, e.finished_at, e.message,
       e.log_path
  from evaluations e
  join specifications s on s.id = e.specification_id
 order by e.id desc
 limit $1;
