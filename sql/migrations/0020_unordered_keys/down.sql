alter table jobs drop column repeats;
drop index derivations_name;
create index builds_name on builds (name text_pattern_ops, id desc);
drop function derivation_name;
alter table outputs set (fillfactor = 80);
