-- The plans of a batch: for arrays of any length, and by keys alone. Made while the tables are small or have no statistics, others
-- read whole tables, or all open attempts for each row, and are kept. For the same reason the statements say `id = any (array[x])`
-- where they mean `id = x`: a join by equality could also be a walk through the whole index, which looks cheap on a table that was
-- empty when it was analyzed.
select set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
