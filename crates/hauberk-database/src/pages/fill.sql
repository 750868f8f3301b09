-- A farm with a history: 3 specifications, 1200 evaluations of 60 jobs, 72000 builds of which the last 12000 are queued.
insert into specifications (name, definition)
select 'spec' || n, '{"name": "x", "input": []}' from generate_series(1, 3) n;
insert into lanes (specification_id, store_directory, system)
select s.id, '/nix/store', y.system from specifications s, (values ('x86_64-linux'), ('aarch64-linux')) y (system);
insert into evaluations (specification_id, status, created_at, finished_at)
select 1 + n % 3, 0, now() - (1201 - n) * interval '1 hour', now() from generate_series(1, 1200) n;
insert into checkouts (evaluation_id, input, specification_id, url, branch, revision, directory)
select id, 'main', specification_id, 'https://example.org/x.git', 'main', md5(id::text), '/checkout' from evaluations;
insert into builds (lane_id, derivation_id, name, system, priority, state, unmet, remaining_path, attempt_id, created_at, started_at,
                    finished_at)
select 1 + n % 6, n, 'package-' || n, case when (1 + n % 6) % 2 = 1 then 'x86_64-linux' else 'aarch64-linux' end, n % 100,
       case when n <= 60000 then (array['succeeded', 'succeeded', 'succeeded', 'failed', 'failed_dependency'])[1 + n % 5]
            when n <= 60040 then 'running'
            when n % 10 = 0 then 'ready' else 'waiting' end,
       case when n > 60040 and n % 10 <> 0 then 1 else 0 end, (n * 7919) % 100000,
       case when n <= 60040 then n end,
       now() - (80000 - n) * interval '1 second', now() - (79990 - n) * interval '1 second',
       case when n <= 60000 then now() - (79900 - n) * interval '1 second' end
  from generate_series(1, 72000) n;
insert into derivations (path, build_id)
select '/nix/store/' || md5(n::text) || '-package-' || n || '.drv', n from generate_series(1, 72000) n;
insert into outputs (path, build_id, name)
select '/nix/store/' || md5('out' || n) || '-package-' || n, n, 'out' from generate_series(1, 72000) n;
insert into build_dependencies select n, 1 from generate_series(2, 72000) n;
insert into build_dependencies select n, n - 1 from generate_series(3, 72000) n;
insert into jobs (evaluation_id, name, build_id, derivation_id)
select 1 + (n - 1) % 1200, 'job-' || (n - 1) / 1200, n, n from generate_series(1, 72000) n;
insert into job_errors select e.id, 'bad-' || n, 'does not evaluate' from evaluations e, generate_series(1, 3) n;
insert into servers (name, host, backend_port, log_port, version) values ('server', 'localhost', 5555, 5556, '0');
insert into server_epochs (server_id) values (1);
insert into workers (name, machine, systems, slots, epoch)
select 'w' || n, 'm' || n % 4, '{x86_64-linux}', 4, case when n > 1 then 1 end from generate_series(1, 8) n;
insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch, started_at, ended_at, class,
                      log_path)
select n, n, 1, 1, 'first', 1 + n % 8, 1, 1, now(), case when n <= 60000 then now() end,
       case when n <= 60000 then 'succeeded' end, n || '.gz'
  from generate_series(1, 60040) n;
analyze;
