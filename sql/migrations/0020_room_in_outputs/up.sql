-- Outputs lie in the order of their builds, which end about together: all rows of a page are written again in one transaction, each longer by the
-- hash of its nar, and what they replace can be tidied up only later. Where they find no room on their page, each also has to be
-- entered into the index of paths anew, which lie in no order: a page of the index for each result. Rows that are there stay where they are.
alter table outputs set (fillfactor = 40);
