-- expand
-- What operators see of a worker: where it is, its version of Runlane, and for how long its agents' loop kept a call
-- waiting. drain_asked_at: an operator has asked it to drain; draining_at: it has done so since.
ALTER TABLE workers ADD COLUMN host TEXT;
ALTER TABLE workers ADD COLUMN pid BIGINT;
ALTER TABLE workers ADD COLUMN version TEXT;
ALTER TABLE workers ADD COLUMN lag_us BIGINT;
ALTER TABLE workers ADD COLUMN draining_at BIGINT;
ALTER TABLE workers ADD COLUMN drain_asked_at BIGINT;

-- Threads whose graph asks something, those that have asked the longest first.
CREATE INDEX threads_asking ON threads (state_updated_at, thread_id)
    WHERE status = 'interrupted' AND interrupts <> '{}';
CREATE INDEX threads_asking_by_owner ON threads (owner, state_updated_at, thread_id)
    WHERE status = 'interrupted' AND interrupts <> '{}';
