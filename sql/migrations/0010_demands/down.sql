alter table workers drop column mandatory_features;
