-- Requests that could not be looked at, by the farm's fault.
-- $1 requests, $2 seconds until the next try, $3 why
update product_requests
set tries = least(tries + 1, 1000), retry_at = now() + make_interval(secs => $2), message = $3, changed_at = now()
where id = any ($1::bigint[]) and state = 'wanted'
