-- A line of the audit: $1 who, $2 action, $3 subject, $4 more about it.
insert into audit (who, action, subject, detail) values ($1, $2, $3, $4) returning id
