-- For a ready build: how many of its lane are more urgent (counted up to 1000), and how many workers could take it.
select (select count(*)
          from (select from builds o
                 where o.lane_id = b.lane_id and o.phase = 'ready' and o.urgency <= b.urgency
                   and (o.urgency < b.urgency or o.remaining_path > b.remaining_path
                        or (o.remaining_path = b.remaining_path and o.id < b.id))
                 limit 1000) o) as ahead,
       (select count(*)
          from workers w
          left join server_epochs e on e.epoch = w.epoch
         where w.revoked_at is null and not w.paused and e.epoch is not null and e.ended_at is null
           and w.store_directory = l.store_directory
           and (b.system = any(w.systems) or b.system = 'builtin') and w.features @> l.features) as workers
  from builds b
  join lanes l on l.id = b.lane_id
 where b.id = $1;
