-- The newest migration of Procrastinate's tables that was applied to this schema.
CREATE TABLE job_migrations (
    version TEXT PRIMARY KEY
);

-- The build of the worker that claimed a run whose graph goes on in no other one, and the groups that a worker claims.
ALTER TABLE runs ADD COLUMN pinned_to TEXT;
ALTER TABLE workers ADD COLUMN groups TEXT;

-- What a worker asks for each second: its runs whose cancel another process recorded.
CREATE INDEX runs_cancelled ON runs (worker_id) WHERE status = 'running' AND cancel_requested_at IS NOT NULL;
