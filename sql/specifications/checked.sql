-- The repositories were looked at; gives what was wrong the time before.
with earlier as (
    select id, check_error from specifications where id = $1 for no key update
)
update specifications s set checked_at = now(), check_error = $2
from earlier
where s.id = earlier.id
returning earlier.check_error as earlier_error
