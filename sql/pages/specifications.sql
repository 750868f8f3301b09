-- The front page: every specification, its latest evaluation, and its latest evaluation that succeeded.
-- Both come from evaluations (specification_id, id desc).
select s.id, s.name, s.definition, s.priority, s.enabled, s.checked_at, s.check_error,
       latest.id as latest_id, latest.status as latest_status, latest.created_at as latest_created_at,
       latest.finished_at as latest_finished_at, latest.message as latest_message,
       good.id as good_id
  from specifications s
  left join lateral (select e.* from evaluations e
                      where e.specification_id = s.id
                      order by e.id desc limit 1) latest on true
  left join lateral (select e.id from evaluations e
                      where e.specification_id = s.id and e.status = 0
                      order by e.id desc limit 1) good on true
 where $1::text is null or s.name = $1
 order by s.name;
