//! What the tables must never show.

/// When a rule holds. Each degree includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Degree {
    /// In every snapshot.
    Always,
    /// While a server runs.
    Attended,
    /// When there is nothing left to do.
    Settled,
}

/// A statement that finds what breaks a rule: one text for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// What must not be.
    pub(super) name: &'static str,
    pub(super) degree: Degree,
    /// The statement's only parameter is the lease, in seconds.
    pub(super) takes_lease: bool,
    /// It compares times of the database's clock, which says nothing where that jumps.
    pub(super) goes_by_clock: bool,
    pub(super) query: &'static str,
}

const fn always(name: &'static str, query: &'static str) -> Rule {
    Rule { name, degree: Degree::Always, takes_lease: false, goes_by_clock: false, query }
}

const fn settled(name: &'static str, query: &'static str) -> Rule {
    Rule { name, degree: Degree::Settled, takes_lease: false, goes_by_clock: false, query }
}

/// All of them.
pub(super) const RULES: &[Rule] = &[
    always(
        "a build has several open attempts",
        "select 'build ' || build_id || ': ' || count(*) from attempts
         where ended_at is null and kind <> 'check' and not late group by build_id having count(*) > 1",
    ),
    always(
        "a build is under way without an open attempt",
        "select 'build ' || b.id || ' is ' || b.state from builds b
         where b.state in ('assigned', 'running', 'built', 'fetching')
           and not exists (select from attempts a where a.id = b.attempt_id and a.build_id = b.id
                           and a.generation = b.generation and a.ended_at is null)",
    ),
    // One that came back late stands beside whatever became of its build, until its outputs are checked.
    always(
        "an attempt is open whose build is not under way",
        "select 'attempt ' || a.id || ' of build ' || b.id || ', which is ' || b.state
         from attempts a join builds b on b.id = a.build_id
         where a.ended_at is null and a.kind <> 'check' and not a.late
           and (b.state not in ('assigned', 'running', 'built', 'fetching') or b.attempt_id is distinct from a.id)",
    ),
    always(
        "a build and its open attempt are not at the same step",
        "select 'build ' || b.id || ' is ' || b.state || ', attempt ' || a.id || case when a.built_at is not null then ' is built'
                when a.started_at is not null then ' has started' else ' has not started' end
         from builds b join attempts a on a.id = b.attempt_id
         where (b.state = 'assigned' and (a.started_at is not null or a.built_at is not null))
            or (b.state = 'running' and (a.started_at is null or a.built_at is not null))
            or (b.state in ('built', 'fetching') and a.built_at is null)",
    ),
    always(
        "a build ended more than once",
        "select 'build ' || build_id || ' in generation ' || generation || ': ' || string_agg('attempt ' || id || ' ' || class, ', ' order by id)
         from attempts
         where class in ('succeeded', 'build_failed', 'timed_out', 'silent', 'log_limit', 'output_limit', 'not_deterministic')
           and kind <> 'check'
         group by build_id, generation having count(*) > 1",
    ),
    always(
        "a build succeeded without an attempt that did",
        "select 'build ' || b.id from builds b
         where b.state = 'succeeded'
           and not exists (select from attempts a where a.id = b.attempt_id and a.build_id = b.id and a.generation = b.generation
                           and a.class = 'succeeded' and a.started_at is not null and a.built_at is not null)",
    ),
    always(
        "an attempt succeeded whose build did not",
        "select 'attempt ' || a.id || ' of build ' || b.id || ', which is ' || b.state
         from attempts a join builds b on b.id = a.build_id
         where a.class = 'succeeded' and a.kind <> 'check' and a.generation = b.generation
           and (b.state <> 'succeeded' or b.attempt_id is distinct from a.id)",
    ),
    always(
        "an attempt failed by the package's fault whose build did not",
        "select 'attempt ' || a.id || ' (' || a.class || ') of build ' || b.id || ', which is ' || b.state
         from attempts a join builds b on b.id = a.build_id
         where a.class in ('build_failed', 'timed_out', 'silent', 'log_limit', 'output_limit', 'not_deterministic')
           and a.kind <> 'check' and a.generation = b.generation
           and (b.state <> 'failed' or b.attempt_id is distinct from a.id)",
    ),
    always(
        "an output of a build that succeeded is not known",
        "select o.path from builds b join outputs o on o.build_id = b.id
         where b.state = 'succeeded' and (o.nar_hash is null or o.nar_size is null or o.server_id is null)",
    ),
    always(
        "an attempt that succeeded did not give what its build gives",
        "select 'build ' || b.id || ': ' || o.path
         from builds b
         join outputs o on o.build_id = b.id
         left join attempt_outputs g on g.attempt_id = b.attempt_id and g.name = o.name
         where b.state = 'succeeded'
           and (g.path is distinct from o.path or g.nar_hash is distinct from o.nar_hash)",
    ),
    always(
        "a build failed without an attempt that tells why",
        "select 'build ' || b.id || ' is ' || b.state || ', attempt ' || coalesce(a.id::text || ' ' || coalesce(a.class, 'open'), 'none')
         from builds b left join attempts a on a.id = b.attempt_id and a.build_id = b.id and a.generation = b.generation
         where (b.state = 'failed' and coalesce(a.class not in ('build_failed', 'timed_out', 'silent', 'log_limit', 'output_limit',
                                                               'not_deterministic'), true))
            or (b.state = 'failed_other' and coalesce(a.class not in ('missing_inputs', 'transfer', 'disk_full', 'out_of_memory',
                                                                     'daemon', 'worker_lost', 'declined'), true))",
    ),
    always(
        "a build failed for a dependency that did not",
        "select 'build ' || b.id || ' for build ' || coalesce(b.failed_build_id::text, '?') from builds b
         where b.state = 'failed_dependency'
           and (not exists (select from builds f where f.id = b.failed_build_id
                            and f.state in ('failed', 'failed_other', 'canceled'))
                or not exists (select from build_dependencies e join builds d on d.id = e.dependency_id
                               where e.build_id = b.id
                                 and d.state in ('failed', 'failed_other', 'failed_dependency', 'canceled')))",
    ),
    always(
        "a build waits for one that failed",
        "select 'build ' || b.id || ' is ' || b.state || ', and build ' || d.id || ' is ' || d.state
         from builds b join build_dependencies e on e.build_id = b.id join builds d on d.id = e.dependency_id
         where b.state in ('staged', 'held', 'waiting', 'deferred', 'ready', 'assigned', 'running', 'built', 'fetching')
           and d.state in ('failed', 'failed_other', 'failed_dependency')",
    ),
    always(
        "the counter of unmet dependencies is wrong",
        "select 'build ' || b.id || ' is ' || b.state || ' with ' || b.unmet || ' unmet, and ' || coalesce(c.n, 0) || ' are'
         from builds b
         left join (select e.build_id, count(*) as n from build_dependencies e join builds d on d.id = e.dependency_id
                    where d.state <> 'succeeded' group by e.build_id) c on c.build_id = b.id
         where b.state <> 'succeeded' and b.unmet <> coalesce(c.n, 0)",
    ),
    always(
        "a build waits for nothing",
        "select 'build ' || id from builds
         where (state = 'waiting' and unmet = 0) or (state = 'deferred' and not_before is null)",
    ),
    always(
        "a build does not wait for its dependencies",
        "select 'build ' || id || ' is ' || state || ' with ' || unmet || ' unmet' from builds
         where state in ('ready', 'deferred', 'assigned', 'running', 'built', 'fetching') and unmet > 0",
    ),
    always(
        "attempts of a build are missing or numbered twice",
        "select 'build ' || build_id || ': ' || string_agg(number::text, ', ' order by number) from attempts
         group by build_id having min(number) <> 1 or max(number) <> count(*) or count(distinct number) <> count(*)",
    ),
    Rule {
        name: "a build went on after its end",
        degree: Degree::Always,
        takes_lease: false,
        goes_by_clock: true,
        query: "select 'build ' || b.id || ': attempt ' || a.id from builds b join attempts a on a.build_id = b.id
         where b.status >= 0 and a.generation = b.generation and a.kind <> 'check' and a.assigned_at > b.finished_at",
    },
    always(
        "a build that ended has no time of its end",
        "select 'build ' || id from builds where status >= 0 and finished_at is null",
    ),
    always(
        "the farm's faults are not those of the attempts",
        // One that was given up and came back late may have been forgiven.
        "select 'build ' || b.id || ': ' || b.farm_faults || ', and ' || count(a.id) || ' attempts'
         from builds b
         left join attempts a on a.build_id = b.id and a.generation = b.generation
              and (a.late or a.class in ('missing_inputs', 'transfer', 'disk_full', 'out_of_memory', 'daemon', 'worker_lost', 'declined'))
         group by b.id
         having b.farm_faults > count(a.id) or b.farm_faults < count(a.id) filter (where not a.late)",
    ),
    Rule {
        name: "an open attempt has no server",
        degree: Degree::Attended,
        takes_lease: false,
        goes_by_clock: false,
        query: "select 'attempt ' || a.id || ' of epoch ' || a.epoch from attempts a
                where a.ended_at is null
                  and not exists (select from server_epochs e where e.epoch = a.epoch and e.ended_at is null)",
    },
    Rule {
        name: "an open attempt has outlived its lease",
        degree: Degree::Attended,
        takes_lease: true,
        goes_by_clock: true,
        // Twice the lease: the server lets one pass before it judges, and what it judges has to be written.
        query: "select 'attempt ' || a.id || ' on ' || w.name
                from attempts a join workers w on w.id = a.worker_id join server_epochs e on e.epoch = a.epoch
                where a.ended_at is null and a.built_at is null and w.epoch is distinct from a.epoch
                  and greatest(a.assigned_at, e.started_at, w.last_seen_at) < now() - make_interval(secs => 2 * $1::double precision + 5)",
    },
    settled(
        "a build has not ended",
        "select name || ' is ' || state || ' with ' || unmet || ' unmet' from builds where status < 0",
    ),
    settled(
        "an attempt has not ended",
        "select 'attempt ' || id || ' of build ' || build_id from attempts where ended_at is null",
    ),
    settled(
        "the log of an attempt that ended by its worker's word is not complete",
        "select 'attempt ' || id || ' (' || class || ')' from attempts
         where not log_complete and coalesce(log_bytes, 0) > 0
           and (built_at is not null or class in ('build_failed', 'timed_out', 'silent', 'log_limit', 'output_limit'))",
    ),
];
