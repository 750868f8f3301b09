-- Whether our version table is there, and whether any other table is.
select to_regclass('hauberk_schema') is not null as ours,
       exists (select from pg_catalog.pg_class c
               where c.relnamespace = current_schema()::regnamespace
                 and c.relkind in ('r', 'p', 'v', 'm')
                 and c.relname <> 'hauberk_schema') as tables
