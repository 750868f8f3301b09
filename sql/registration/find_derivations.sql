select path, id from derivations where path = any ($1::text[])
