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
    attempts BIGINT NOT NULL DEFAULT 0,
    tries BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (origin, next_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (created_at, run_id);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE webhook_attempts (
    run_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    sent_at BIGINT NOT NULL,
    duration_us BIGINT NOT NULL,
    status_code BIGINT,
    error TEXT,
    PRIMARY KEY (run_id, number)
);
