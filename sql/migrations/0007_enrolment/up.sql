-- One-time tokens by which new machines join. The token itself is nowhere; whoever presents it is known by its digest.
create table enrolment_tokens (
    id         bigint generated always as identity primary key,
    -- SHA-256 of the token.
    digest     bytea       not null unique check (octet_length(digest) = 32),
    -- The name that the worker gets, if it is not to choose.
    name       text,
    -- The systems it may build for; null: those it says.
    systems    text[],
    uses       integer     not null check (uses > 0),
    used       integer     not null default 0 check (used between 0 and uses),
    created_at timestamptz not null default now(),
    created_by text        not null,
    expires_at timestamptz not null,
    revoked_at timestamptz
);

-- The token a worker was enrolled by, and the systems it may build for, if that was limited.
alter table workers add column token_id bigint, add column allowed_systems text[];
