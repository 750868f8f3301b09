-- An output, by the part of its path below the store directory, and the derivation that its build uses.
select o.path, o.name, o.build_id, d.path as derivation
  from outputs o
  join builds b on b.id = o.build_id
  left join derivations d on d.id = b.derivation_id
 where o.path in (select distinct store_directory || '/' || $1 from lanes)
 limit 1;
