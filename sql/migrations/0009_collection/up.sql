-- Outputs that were removed from the farm's caches: whoever needs them again has the build begin anew.

alter table builds
    -- When outputs of a build that had succeeded were removed; null while they are all there.
    add column collected_at timestamptz;
