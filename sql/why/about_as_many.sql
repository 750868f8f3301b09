-- How many builds that are at least so urgent wait, as the planner believes.
-- $1 urgency
explain (format json) select from builds where phase in ('ready', 'deferred', 'waiting') and urgency <= $1
