-- The products of some builds; one that several specifications want is shown once.
select distinct on (p.build_id, p.type, p.path)
       p.id, p.build_id, p.type, p.path, p.name, p.directory, p.file_size, p.sha256, p.created_at
  from build_products p
 where p.build_id = any($1)
 order by p.build_id, p.type, p.path, p.id;
