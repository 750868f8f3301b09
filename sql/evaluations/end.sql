update evaluations set status = $2, message = $3, finished_at = now() where id = $1 and status = -1
