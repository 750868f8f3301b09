update evaluations set status = 0, message = $2, finished_at = now() where id = $1
