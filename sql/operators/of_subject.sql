-- What was done to a thing, newest first. $1 its number or name, $2 how the actions on its kind begin, $3 how many
select at, who, action, subject, detail
from audit
where subject = $1 and starts_with(action, $2)
order by id desc
limit $3
