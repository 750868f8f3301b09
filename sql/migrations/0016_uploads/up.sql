-- Whether the worker uploads its results, as its server did not find its publish port; null: it was not looked for yet.
alter table workers add column uploads boolean;
