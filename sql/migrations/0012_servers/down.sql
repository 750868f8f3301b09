drop index server_epochs_open;
alter table server_epochs drop column lease_ms;
alter table servers drop column stores;
alter table servers drop column address;
