insert into evaluations (specification_id, checked_out_at) values ($1, now()) returning id
