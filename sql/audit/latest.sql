select at, who, action, subject, detail from audit order by at desc, id desc limit $1
