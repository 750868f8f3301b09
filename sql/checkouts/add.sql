insert into checkouts (evaluation_id, specification_id, input, url, branch, revision, directory)
select $1, $2, c.input, c.url, c.branch, c.revision, c.directory
from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) as c (input, url, branch, revision, directory)
