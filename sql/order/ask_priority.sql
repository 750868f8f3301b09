-- An operator gives a build a priority of its own; null takes it back.
-- $1 build id, $2 priority
update builds set priority_asked = $2 where id = $1 and state <> 'succeeded' returning id as build_id
