-- Leaves notes of builds that are over without success, with others that needed them, or that begin anew.
-- $1 build ids
insert into order_notes (build_id) select unnest($1::bigint[])
