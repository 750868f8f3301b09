insert into audit (who, action, subject, detail) values ($1, $2, $3, $4)
