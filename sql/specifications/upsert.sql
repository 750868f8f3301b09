-- Records a specification as its file has it now. `updated_at` moves only when the definition does.
insert into specifications as s (name, definition, priority, shares, enabled, public)
values ($1, $2, $3, $4, $5, $6)
on conflict (name) do update
    set definition = excluded.definition, priority = excluded.priority, shares = excluded.shares,
        enabled = excluded.enabled, public = excluded.public,
        updated_at = case when s.definition = excluded.definition then s.updated_at else now() end
returning id
