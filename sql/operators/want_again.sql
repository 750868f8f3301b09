-- The builds of this evaluation are wanted again.
update evaluations set canceled_at = null where id = $1
