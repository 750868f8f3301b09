-- These builds, where they are unfinished, hold still until the transaction ends.
-- $1 build ids
select b.id
from builds b
where b.id = any ($1::bigint[]) and b.status < 0
order by b.id
for share
