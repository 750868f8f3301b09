-- An operator puts an evaluation before everything, or does not any more. What it publishes later follows it.
-- $1 evaluation id, $2 whether
update evaluations set emergency = $2 where id = $1 returning id
