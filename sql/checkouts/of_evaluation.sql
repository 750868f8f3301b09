select input, url, branch, revision, directory from checkouts where evaluation_id = $1 order by input
