-- What the file no longer has is not watched any more; its history stays.
update specifications set enabled = false where enabled and name <> all ($1::text[]) returning name
