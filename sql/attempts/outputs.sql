-- $1 attempt id
select name, path, nar_hash, nar_size, "references" as refs from attempt_outputs where attempt_id = $1 order by name
