-- What was done to build $1, newest first.
select a.at, a.who, a.action, a.subject, a.detail
from audit_builds x
join audit a on a.id = x.audit_id
where x.build_id = $1
order by x.audit_id desc
limit $2
