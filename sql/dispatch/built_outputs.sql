-- What those attempts gave.
-- $1 attempt ids, $2 output names, $3 paths, $4 nar hashes, $5 nar sizes, $6 references joined by blanks (parallel)
insert into attempt_outputs (attempt_id, name, path, nar_hash, nar_size, "references")
select o.attempt_id, o.name, o.path, o.nar_hash, o.nar_size,
       case when o.refs = '' then '{}' else string_to_array(o.refs, ' ') end
from unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::text[])
    as o (attempt_id, name, path, nar_hash, nar_size, refs)
on conflict (attempt_id, name) do nothing
