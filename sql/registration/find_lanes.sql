select id, store_directory, system, features from lanes where specification_id = $1
