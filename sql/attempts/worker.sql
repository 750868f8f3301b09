-- Where the results of an attempt's worker are, and the key they must be signed with.
-- $1 attempt id
select w.name, w.publish_url, w.signing_key, a.fetch_tries
from attempts a
join workers w on w.id = a.worker_id
where a.id = $1
