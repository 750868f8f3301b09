-- The builds that ended last, by builds_finished. With a system ($2) only the newest 100000 are looked through.
select b.id
  from (select id, system, finished_at
          from builds
         where finished_at is not null
         order by finished_at desc, id desc
         limit case when $2::text is null then $1::bigint else 100000 end) b
 where $2::text is null or b.system = $2
 order by b.finished_at desc, b.id desc
 limit $1::bigint;
