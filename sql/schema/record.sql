insert into hauberk_schema (version, name) values ($1, $2)
