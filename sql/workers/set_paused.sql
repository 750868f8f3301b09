update workers set paused = $2, pause_reason = $3 where id = $1
