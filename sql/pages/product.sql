-- A product, and where it is to be had.
select p.id, p.build_id, p.type, p.path, p.name, p.directory, p.file_size, p.sha256, p.created_at, s.name as server, s.publish_url
  from build_products p
  join servers s on s.id = p.server_id
 where p.id = $1;
