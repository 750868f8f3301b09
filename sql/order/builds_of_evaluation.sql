-- What an evaluation wants and does not have yet.
-- $1 evaluation id
select distinct b.id as build_id from jobs j join builds b on b.id = j.build_id
where j.evaluation_id = $1 and b.state <> 'succeeded'
