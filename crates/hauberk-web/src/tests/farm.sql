-- A small farm with something of everything. BASE stands for a moment.
insert into specifications (name, definition, priority, checked_at, check_error) values
 ('demo', '{"name": "demo", "priority": 2, "period": 300,
            "input": [{"name": "main", "url": "https://git.example.org/demo.git", "branch": "main"},
                      {"name": "packages", "url": "https://git.example.org/packages.git", "branch": "stable"}],
            "evaluator": {"kind": "nix", "expression": "release.nix", "systems": ["x86_64-linux", "aarch64-linux"]}}',
  2, BASE - interval '1 minute', null),
 ('broken <b>name</b>', '{"input": []}', 9, BASE - interval '5 minutes',
  'cannot fetch https://git.example.org/gone.git: repository not found'),
 ('idle', '{"input": []}', 9, null, null);
update specifications set enabled = false where name = 'idle';
insert into lanes (specification_id, store_directory, system, features) values
 (1, '/nix/store', 'x86_64-linux', '{}'), (1, '/nix/store', 'aarch64-linux', '{}'), (2, '/nix/store', 'x86_64-linux', '{kvm}');
insert into evaluations (specification_id, status, created_at, checked_out_at, finished_at, message) values
 (1, 0, BASE - interval '3 hours', BASE - interval '179 minutes', BASE - interval '178 minutes', null),
 (1, 0, BASE - interval '40 minutes', BASE - interval '39 minutes', BASE - interval '38 minutes', null),
 (2, 1, BASE - interval '2 hours', BASE - interval '119 minutes', BASE - interval '118 minutes',
  'error: undefined variable ''<script>alert(1)</script>''' || E'\n' || '  at release.nix:3:5');
insert into checkouts (evaluation_id, input, specification_id, url, branch, revision, directory) values
 (1, 'main', 1, 'https://git.example.org/demo.git', 'main', '0123456789abcdef0123456789abcdef01234567', '/checkouts/1'),
 (1, 'packages', 1, 'https://git.example.org/packages.git', 'stable', '89abcdef0123456789abcdef0123456789abcdef', '/checkouts/2'),
 (2, 'main', 1, 'https://git.example.org/demo.git', 'main', 'fedcba9876543210fedcba9876543210fedcba98', '/checkouts/3'),
 (2, 'packages', 1, 'https://git.example.org/packages.git', 'stable', '89abcdef0123456789abcdef0123456789abcdef', '/checkouts/2'),
 (3, 'main', 2, 'https://git.example.org/gone.git', 'main', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '/checkouts/4');
insert into servers (name, host, backend_port, log_port, publish_url, version) values
 ('server', 'head', 5555, 5556, 'http://head.example.org:5557', '0.1.0');
insert into server_epochs (server_id, beat_at) values (1, now());
insert into workers (name, public_key, machine, address, version, daemon, store_directory, systems, features, slots, epoch,
                     connected_at, last_seen_at, load, paused, pause_reason) values
 ('alder', 'k1', 'm-one', '10.0.0.1', '0.1.0', 'nix 2.8.0', '/nix/store', '{x86_64-linux,i686-linux}', '{kvm}', 4, 1,
  BASE - interval '5 hours', BASE - interval '3 seconds',
  '{"load1": 3.12, "memory_available_bytes": 13421772800, "store_free_bytes": 214748364800, "build_free_bytes": 53687091200, "cpu_pressure": 12.5, "io_pressure": null}',
  false, null),
 ('birch', 'k2', 'm-one', '10.0.0.1', '0.1.0', 'nix 2.8.0', '/nix/store', '{x86_64-linux}', '{}', 2, 1,
  BASE - interval '5 hours', BASE - interval '4 seconds', null, true, 'its disk failed three builds in a row'),
 ('cedar', 'k3', 'm-two', '10.0.0.2', '0.1.0', 'nix 2.18.1', '/nix/store', '{aarch64-linux}', '{}', 2, null,
  BASE - interval '2 days', BASE - interval '1 day', null, false, null),
 ('new <i>worker</i>', 'k4', '', '', '', '', '', '{}', '{}', 0, null, null, null, null, false, null);
insert into builds (lane_id, derivation_id, name, system, priority, state, unmet, created_at, started_at, finished_at, farm_faults,
                    not_before, timeout, max_silent, failed_build_id) values
 (1, 1, 'zlib-1.3.1', 'x86_64-linux', 20, 'succeeded', 0, BASE - interval '178 minutes', BASE - interval '177 minutes', BASE - interval '176 minutes', 0, null, 0, 0, null),
 (1, 2, 'hello-2.12.1', 'x86_64-linux', 20, 'succeeded', 0, BASE - interval '178 minutes', BASE - interval '175 minutes', BASE - interval '10483 seconds', 0, null, 3600, 1800, null),
 (1, 3, 'xss-<script>alert(1)</script>-1.0', 'x86_64-linux', 21, 'failed', 0, BASE - interval '178 minutes', BASE - interval '20 minutes', BASE - interval '18 minutes', 1, null, 3600, 600, null),
 (1, 4, 'needs-xss-2.0', 'x86_64-linux', 22, 'failed_dependency', 1, BASE - interval '38 minutes', null, BASE - interval '18 minutes', 0, null, 0, 0, 3),
 (1, 5, 'gcc-13.2.0', 'x86_64-linux', 20, 'running', 0, BASE - interval '38 minutes', BASE - interval '12 minutes', null, 0, null, 36000, 7200, null),
 (1, 6, 'coreutils-9.4', 'x86_64-linux', 25, 'fetching', 0, BASE - interval '38 minutes', BASE - interval '3 minutes', null, 0, null, 0, 0, null),
 (1, 7, 'findutils-4.9.0', 'x86_64-linux', 25, 'assigned', 0, BASE - interval '38 minutes', null, null, 0, null, 0, 0, null),
 (1, 8, 'libreoffice-7.6', 'x86_64-linux', 29, 'waiting', 1, BASE - interval '38 minutes', null, null, 0, null, 0, 0, null),
 (1, 9, 'make-4.4.1', 'x86_64-linux', 25, 'ready', 0, BASE - interval '38 minutes', null, null, 0, null, 0, 0, null),
 (2, 10, 'hello-2.12.1', 'aarch64-linux', 20, 'ready', 0, BASE - interval '38 minutes', null, null, 0, null, 0, 0, null),
 (3, 11, 'vm-image-1', 'x86_64-linux', 99, 'deferred', 0, BASE - interval '2 hours', null, null, 2, BASE + interval '10 minutes', 0, 0, null),
 (1, 12, 'timeout-1.0', 'x86_64-linux', 29, 'failed', 0, BASE - interval '38 minutes', BASE - interval '30 minutes', BASE - interval '29 minutes', 0, null, 60, 0, null),
 (1, 13, 'gone-1.0', 'x86_64-linux', 29, 'failed_other', 0, BASE - interval '38 minutes', BASE - interval '30 minutes', BASE - interval '25 minutes', 4, null, 0, 0, null),
 (1, 14, 'nobody-1.0', 'x86_64-linux', 29, 'canceled', 0, BASE - interval '178 minutes', null, BASE - interval '38 minutes', 0, null, 0, 0, null);
insert into derivations (path, build_id)
select '/nix/store/' || substr(md5('d' || id), 1, 32) || '-' || (case when id = 3 then 'xss-1.0' else name end) || '.drv', id
  from builds order by id;
insert into outputs (path, build_id, name, nar_hash, nar_size, server_id)
select '/nix/store/' || substr(md5('o' || id), 1, 32) || '-' || (case when id = 3 then 'xss-1.0' else name end), id, 'out',
       case when state = 'succeeded' then sha256(convert_to(name, 'UTF8')) end, case when state = 'succeeded' then 226560 * id end,
       case when state = 'succeeded' then 1 end
  from builds order by id;
insert into outputs (path, build_id, name, nar_hash, nar_size) values
 ('/nix/store/' || substr(md5('dev'), 1, 32) || '-zlib-1.3.1-dev', 1, 'dev', sha256('dev'), 99328);
insert into build_dependencies values (2, 1), (3, 1), (4, 3), (4, 2), (5, 1), (6, 5), (8, 5), (8, 2);
insert into jobs (evaluation_id, name, build_id, derivation_id, weather) values
 (1, 'hello.x86_64-linux', 2, 2, 0), (1, 'zlib.x86_64-linux', 1, 1, 0), (1, 'nobody', 14, 14, -1),
 (2, 'coreutils.x86_64-linux', 6, 6, -1), (2, 'findutils.x86_64-linux', 7, 7, -1), (2, 'gcc.x86_64-linux', 5, 5, -1),
 (2, 'gone', 13, 13, 1), (2, 'hello.aarch64-linux', 10, 10, -1), (2, 'hello.x86_64-linux', 2, 2, 2),
 (2, 'libreoffice.x86_64-linux', 8, 8, -1), (2, 'make.x86_64-linux', 9, 9, -1), (2, 'needs-xss', 4, 4, 1),
 (2, 'timeout', 12, 12, 1), (2, '"><img src=x onerror=alert(1)>', 3, 3, 1), (2, 'zlib.x86_64-linux', 1, 1, 2);
insert into job_errors values (2, 'bad<b>', 'error: attribute ''version'' missing' || E'\n' || '<script>alert(4)</script>');
insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch, assigned_at, started_at, built_at,
                      ended_at, class, exit_status, message, origin, inputs_ms, build_ms, peak_memory, log_server_id, log_path,
                      log_bytes, log_complete, fetch_tries, fetch_error) values
 (1, 1, 1, 1, 'first', 1, 1, 1, BASE - interval '177 minutes', BASE - interval '177 minutes', BASE - interval '176 minutes', BASE - interval '176 minutes', 'succeeded', 0, null, 'already_valid', 12, 40, null, 1, null, null, false, 1, null),
 (2, 2, 1, 1, 'first', 1, 1, 1, BASE - interval '175 minutes', BASE - interval '175 minutes', BASE - interval '10485 seconds', BASE - interval '10483 seconds', 'succeeded', 0, null, 'built', 840, 15300, 183500800, 1, '00/2.gz', 1043, true, 1, null),
 (3, 3, 1, 1, 'first', 2, 1, 1, BASE - interval '30 minutes', BASE - interval '30 minutes', null, BASE - interval '28 minutes', 'worker_lost', null, 'the worker was not heard of for 60 s', null, 3400, null, null, 1, '00/3.gz', null, false, 0, null),
 (3, 3, 1, 2, 'retry', 1, 1, 1, BASE - interval '20 minutes', BASE - interval '20 minutes', null, BASE - interval '18 minutes', 'build_failed', 2, 'builder failed with exit code 2; last line: <script>alert(2)</script>', null, 500, 118000, 52428800, 1, '00/4.gz', 900, true, 0, null),
 (5, 5, 1, 1, 'first', 1, 1, 1, BASE - interval '12 minutes', BASE - interval '12 minutes', null, null, null, null, null, null, 2100, null, null, 1, '00/5.gz', null, false, 0, null),
 (6, 6, 1, 1, 'first', 1, 1, 1, BASE - interval '3 minutes', BASE - interval '3 minutes', BASE - interval '20 seconds', null, null, null, null, 'built', 900, 160000, null, 1, '00/6.gz', null, false, 2, 'publish server http://10.0.0.1:5558 answered 503'),
 (7, 7, 1, 1, 'first', 1, 1, 1, BASE - interval '2 seconds', null, null, null, null, null, null, null, null, null, null, 1, null, null, false, 0, null),
 (12, 12, 1, 1, 'first', 1, 1, 1, BASE - interval '30 minutes', BASE - interval '30 minutes', null, BASE - interval '29 minutes', 'timed_out', null, 'ran longer than its timeout of 60 s', null, 100, 60000, null, 1, '00/8.gz', 100, true, 0, null),
 (13, 13, 1, 4, 'retry', 2, 1, 1, BASE - interval '30 minutes', BASE - interval '30 minutes', null, BASE - interval '25 minutes', 'disk_full', null, 'no space left on the build directory', null, 100, 300000, null, 1, null, null, false, 0, null);
update builds set attempt_id = (select max(a.id) from attempts a where a.build_id = builds.id);
analyze;
