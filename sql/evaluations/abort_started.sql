-- What a register that was killed left behind.
update evaluations set status = 2, message = $1, finished_at = now() where status = -1 returning id
