-- The build of a derivation, by the part of its path below the store directory.
select build_id
  from derivations
 where path in (select distinct store_directory || '/' || $1 from lanes)
 limit 1;
