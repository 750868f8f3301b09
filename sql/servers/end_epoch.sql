-- $1 epoch
update server_epochs set ended_at = now() where epoch = $1
