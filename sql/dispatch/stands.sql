-- Asks nothing: the connection stands if there is an answer.
select 1
