-- Evaluations older than $2, newest first: of specification $1, by evaluations (specification_id, id desc).
select e.id, e.specification_id, s.name as specification, e.status, e.created_at, e.checked_out_at, e.finished_at, e.message,
       e.log_path
  from evaluations e
  join specifications s on s.id = e.specification_id
 where e.specification_id = $1 and e.id < $2
 order by e.id desc
 limit $3;
