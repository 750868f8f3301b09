insert into lanes (specification_id, store_directory, system, features) values ($1, $2, $3, $4) returning id
