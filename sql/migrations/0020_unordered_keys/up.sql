-- Claims and results enter a build and its outputs into their indexes anew. What builds are called, and where their outputs lie, has nothing to do with the
-- order they are built in: with a long queue that is a page of such an index for each build, read, written, and logged whole.

-- Outputs lie in the order of their builds, which end about together: all rows of a page are written again in one transaction, each longer by the
-- hash of its nar, and what they replace can be tidied up only later. With room on the page they need not be entered anew. Rows that are
-- there stay where they are.
alter table outputs set (fillfactor = 40);

-- Builds are found by the names of their derivations, whose rows stay as they were recorded.
create function derivation_name(path text) returns text language sql immutable parallel safe as $$
    select right(path, strpos(reverse(path), '/') - 34)
$$;
drop index builds_name;
create index derivations_name on derivations (derivation_name(path) text_pattern_ops, build_id desc);

-- Whether an earlier evaluation of the specification has a job of this name. Where none has, its build's end need not look for one.
alter table jobs add column repeats boolean not null default true;
