-- expand
-- Runs that were admitted, have started, or were handed back lately; those that ended lately are in runs_ended.
CREATE INDEX runs_changed ON runs (updated_at) WHERE ended_at IS NULL;
