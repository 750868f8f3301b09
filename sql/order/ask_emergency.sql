-- An operator puts a build before everything, or does not any more.
-- $1 build id, $2 whether
update builds set emergency_asked = $2 where id = $1 and state <> 'succeeded' returning id as build_id
