-- Shows that the server lives. No row: a newer start has taken over.
-- $1 epoch
update server_epochs set beat = beat + 1, beat_at = now() where epoch = $1 and ended_at is null
