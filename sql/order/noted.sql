-- The oldest notes.
-- $1 how many at most
select id as note_id from order_notes order by id limit $1
