select id, enabled from specifications where name = $1
