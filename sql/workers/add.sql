-- Enrols a worker. A name that was revoked, that joined without a key, or that has this very key is taken over.
insert into workers (name, public_key, signing_key, enrolled_by) values ($1, $2, $3, $4)
on conflict (name) do update
    set public_key = excluded.public_key, signing_key = excluded.signing_key, enrolled_by = excluded.enrolled_by,
        enrolled_at = now(), revoked_at = null, token_id = null, allowed_systems = null
    where workers.revoked_at is not null or workers.public_key is null or workers.public_key = excluded.public_key
returning id
