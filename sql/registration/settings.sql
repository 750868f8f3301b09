-- The arrays below are long, and plans made for their true length scan whole tables.
select set_config('plan_cache_mode', 'force_generic_plan', true)
