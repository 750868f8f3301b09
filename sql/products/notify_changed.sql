-- Pages of builds that got products. $1 builds
select pg_notify('hauberk_changed', 'build:' || id) from unnest($1::bigint[]) as n (id)
