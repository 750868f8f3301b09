-- A server has all derivations and sources of an evaluation.
-- $1 evaluation id, $2 server id, $3 paths that were sent, $4 bytes of their nars
update pushes set completed_at = now(), paths = $3, bytes = $4 where evaluation_id = $1 and server_id = $2
