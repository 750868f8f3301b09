delete from hauberk_schema where version = $1
