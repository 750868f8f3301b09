select version, name, applied_at from hauberk_schema order by version
