-- What the evaluations saw of their inputs.
select evaluation_id, input, url, branch, revision, directory
  from checkouts
 where evaluation_id = any($1)
 order by evaluation_id desc, input;
