-- Build products: files that specifications name, taken out of the outputs of their jobs' builds and offered for download.

-- What specifications want of builds. No foreign key to builds, as of all that is written for each build.
create table product_requests (
    id               bigint generated always as identity primary key,
    build_id         bigint      not null,
    specification_id integer     not null references specifications on delete cascade,
    -- The output's name.
    output           text        not null,
    -- The path in it, perhaps with wild cards; empty for all of it.
    path             text        not null,
    -- What people call it.
    type             text        not null,
    -- wanted: once the build has succeeded. taken: the products are here. missing: the output has nothing of that name. refused: it has, and it is
    -- not taken. removed: nobody wants it any more, or there was no room.
    state            text        not null default 'wanted' check (state in ('wanted', 'taken', 'missing', 'refused', 'removed')),
    -- Why it is not here, or not all of it.
    message          text,
    -- The build's generation when that was decided.
    generation       integer,
    -- Tries that failed by the farm's fault, and when the next may be.
    tries            smallint    not null default 0,
    retry_at         timestamptz,
    created_at       timestamptz not null default now(),
    changed_at       timestamptz not null default now(),
    unique (build_id, specification_id, output, path, type)
);
create index product_requests_wanted on product_requests (build_id) where state = 'wanted';
create index on product_requests (specification_id);

-- A file offered for download.
create table build_products (
    id         bigint generated always as identity primary key,
    build_id   bigint      not null,
    request_id bigint      not null references product_requests on delete cascade,
    type       text        not null,
    -- The path it has in the store, as it was asked for.
    path       text        not null,
    -- The name it is downloaded under.
    name       text        not null,
    -- Whether it is the archive of a directory.
    directory  boolean     not null default false,
    file_size  bigint      not null check (file_size >= 0),
    sha256     bytea       not null check (octet_length(sha256) = 32),
    -- The server that holds it.
    server_id  integer     not null references servers,
    created_at timestamptz not null default now(),
    unique (request_id, path)
);
create index on build_products (build_id);
create index on build_products (server_id, sha256);
create index on build_products (type, id desc);
