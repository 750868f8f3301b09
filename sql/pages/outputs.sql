-- The outputs of some builds.
select build_id, name, path, nar_hash, nar_size
  from outputs
 where build_id = any($1)
 order by build_id, name;
