-- Asks the register to look at a specification now.
select pg_notify('hauberk_evaluation', $1)
