-- Features that a worker has and that a build must require to be given to it.
alter table workers add column mandatory_features text[] not null default '{}';
