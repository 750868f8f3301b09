update evaluations set retry_requested_at = now() where id = $1
