drop table queue_counts;
drop table seats;
