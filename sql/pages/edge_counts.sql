-- How many builds $1 needs, and how many need it; counted up to 10000.
select (select count(*) from (select from build_dependencies where build_id = $1 limit 10000) e) as dependencies,
       (select count(*) from (select from build_dependencies where dependency_id = $1 limit 10000) e) as dependents;
