select name, message from job_errors where evaluation_id = $1 order by name
