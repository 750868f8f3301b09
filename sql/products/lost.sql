-- Products that a server does not have any more: they are wanted again, with all of their requests.
-- $1 server, $2 hashes
with lost as (
    select distinct request_id from build_products where server_id = $1 and sha256 = any ($2::bytea[])
), gone as (
    delete from build_products p using lost where p.request_id = lost.request_id
)
update product_requests r
set state = 'wanted', message = 'the file was lost', generation = null, tries = 0, retry_at = null, changed_at = now()
from lost
where r.id = lost.request_id and r.state = 'taken'
