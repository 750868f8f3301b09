-- What the farm did lately is found by the attempts' numbers, which grow with their time: an index of the times took a look at every write of an
-- attempt, and was asked once a start.
drop index attempts_assigned;
