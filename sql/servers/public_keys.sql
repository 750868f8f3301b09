-- The keys by which workers know the farm's servers, the server that was added last first.
select name, public_key from servers where public_key is not null order by id desc
