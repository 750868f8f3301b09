alter table workers drop column uploads;
