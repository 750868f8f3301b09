-- Evaluations whose derivations and sources a register brings to a server, as the two share no store: until it has them all, the
-- evaluation is not published.
create table pushes (
    evaluation_id bigint      not null references evaluations on delete cascade,
    server_id     integer     not null references servers on delete cascade,
    -- SHA-256 of the token by which things are pushed.
    token_digest  bytea       not null check (octet_length(token_digest) = 32),
    created_at    timestamptz not null default now(),
    expires_at    timestamptz not null,
    -- When the server had all of them, and what was sent for that; null until then.
    completed_at  timestamptz,
    paths         bigint,
    bytes         bigint,
    primary key (evaluation_id, server_id)
);
create index on pushes (server_id, evaluation_id) where completed_at is null;
