-- Whether an ended run's events were removed, so that a purge reads only runs that may still have some.
ALTER TABLE runs ADD COLUMN log_purged BIGINT NOT NULL DEFAULT 0;
UPDATE runs SET log_purged = 1
  WHERE ended_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events WHERE events.run_seq = runs.seq);
CREATE INDEX runs_with_log ON runs (ended_at) WHERE ended_at IS NOT NULL AND log_purged = 0;
