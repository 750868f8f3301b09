-- A fetch failed and will be tried again.
-- $1 attempt id, $2 epoch, $3 seconds until the next try, $4 what went wrong
update attempts
set fetch_tries = fetch_tries + 1, fetch_after = now() + make_interval(secs => $3), fetch_error = $4
where id = $1 and epoch = $2 and ended_at is null
