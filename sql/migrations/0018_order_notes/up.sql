-- Builds whose end, or new beginning, has not been told yet to the order of what was needed with them. Written where such a thing happens,
-- in its transaction; read and removed by the servers, soon and on their own time. Normally empty.
create table order_notes (
    id       bigint      primary key generated always as identity,
    build_id bigint      not null,
    noted_at timestamptz not null default now()
);
