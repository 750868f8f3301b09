select id, name, definition, priority, shares, enabled, public, created_at, updated_at, checked_at, check_error
from specifications
order by name
