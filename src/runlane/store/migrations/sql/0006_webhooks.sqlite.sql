ALTER TABLE runs ADD COLUMN webhook TEXT;

CREATE TABLE webhook_deliveries (
    run_id TEXT PRIMARY KEY,
    thread_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    metadata TEXT NOT NULL,
    url TEXT NOT NULL,
    origin TEXT NOT NULL,
    run TEXT NOT NULL,
    state_values TEXT,
    omitted TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at INTEGER
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (origin, next_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (created_at, run_id);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE webhook_attempts (
    run_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    status_code INTEGER,
    error TEXT,
    PRIMARY KEY (run_id, number)
);
