create table if not exists hauberk_schema (
    version    integer     primary key,
    name       text        not null,
    applied_at timestamptz not null default now()
)
