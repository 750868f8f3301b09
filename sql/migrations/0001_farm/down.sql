drop table audit, attempt_outputs, attempts, workers, server_epochs, servers, job_errors, jobs, build_dependencies, outputs,
    derivations, builds, lanes, checkouts, evaluations, specifications;
