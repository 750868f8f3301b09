-- Late results, and what operators ask for: canceled builds and evaluations, workers that are to leave.

-- The result came after the attempt had been given up, and another attempt of its build was open by then. It is open again beside that
-- one until its outputs are checked; the build speaks of the other.
alter table attempts add column late boolean not null default false;
drop index attempts_one_open;
create unique index attempts_one_open on attempts (build_id) where ended_at is null and kind <> 'check' and not late;

-- An operator wants the build stopped, and its open attempt has not ended yet. Meaningless for a build that is final.
alter table builds add column cancel_requested_at timestamptz;
create index builds_cancel on builds (id) where cancel_requested_at is not null and status < 0;

-- An operator does not want the builds of this evaluation any more. Whether another wants them is asked build by build.
alter table evaluations add column canceled_at timestamptz;

-- The worker is to finish what it runs, and to leave; if it comes back, it is told so again.
alter table workers add column draining boolean not null default false;
