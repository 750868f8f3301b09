drop index builds_waiting;
