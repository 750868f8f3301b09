-- Outputs of builds that are not finished, and of what those need: removing them would cost a build.
with recursive needed (id) as (
    select id from builds where status < 0
  union
    select d.dependency_id from builds b join build_dependencies d on d.build_id = b.id where b.status < 0
)
select o.path from needed n join outputs o on o.build_id = n.id
