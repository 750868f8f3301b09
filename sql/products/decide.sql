-- What became of a request, if it is still wanted.
-- $1 request, $2 state, $3 message, $4 the build's generation
update product_requests
set state = $2, message = $3, generation = $4, retry_at = null, changed_at = now()
where id = $1 and state = 'wanted'
