alter table outputs set (fillfactor = 80);
