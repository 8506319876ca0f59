-- assistant_owner and thread_owner are whose the assistant and the thread are; thread_where is what the thread has to
-- match. next_run_at is the slot to be fired next, NULL if there is none; revision counts changes and firings.
CREATE TABLE crons (
    cron_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    permissions TEXT NOT NULL,
    assistant_id TEXT NOT NULL,
    assistant_owner TEXT NOT NULL,
    thread_id TEXT,
    thread_owner TEXT,
    thread_where TEXT,
    schedule TEXT NOT NULL,
    timezone TEXT,
    end_at INTEGER,
    payload TEXT NOT NULL,
    metadata TEXT NOT NULL,
    on_run_completed TEXT,
    missed TEXT NOT NULL,
    overlap TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    next_run_at INTEGER,
    last_slot_at INTEGER,
    last_run_id TEXT,
    error TEXT,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX crons_due ON crons (next_run_at) WHERE enabled = 1 AND next_run_at IS NOT NULL;
CREATE INDEX crons_by_owner ON crons (owner, created_at);
