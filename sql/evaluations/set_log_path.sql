update evaluations set log_path = $2 where id = $1
