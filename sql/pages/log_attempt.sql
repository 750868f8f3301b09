-- The attempt whose log stands for build $1: the one that runs or decided its state, else the newest.
select b.name,
       coalesce(b.attempt_id,
                (select a.id from attempts a where a.build_id = b.id order by a.number desc limit 1)) as attempt_id
  from builds b
 where b.id = $1;
