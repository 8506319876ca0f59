CREATE TABLE threads (
    thread_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    settled TEXT NOT NULL,
    metadata TEXT NOT NULL,
    config TEXT NOT NULL,
    state_values TEXT,
    interrupts TEXT NOT NULL,
    error TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state_updated_at INTEGER NOT NULL
);
CREATE INDEX threads_by_owner ON threads (owner, updated_at);

CREATE TABLE assistants (
    assistant_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    version INTEGER NOT NULL,
    graph_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    config TEXT NOT NULL,
    context TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX assistants_by_owner ON assistants (owner, created_at);

CREATE TABLE assistant_versions (
    assistant_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    graph_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    config TEXT NOT NULL,
    context TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (assistant_id, version)
);

CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    thread_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    assistant_id TEXT,
    status TEXT NOT NULL,
    end_reason TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    rescues INTEGER NOT NULL DEFAULT 0,
    worker_id TEXT,
    lease_expires_at INTEGER,
    multitask_strategy TEXT NOT NULL,
    on_disconnect TEXT NOT NULL,
    metadata TEXT NOT NULL,
    kwargs TEXT NOT NULL,
    model_name TEXT,
    error TEXT,
    usage TEXT,
    result TEXT,
    events_end INTEGER,
    temporary INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT,
    cancel_action TEXT,
    cancel_reason TEXT,
    cancel_by TEXT,
    cancel_requested_at INTEGER,
    cancel_observed_at INTEGER,
    cancel_stopped_at INTEGER,
    cancel_blocked_at TEXT,
    not_before INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER
);
CREATE INDEX runs_by_thread ON runs (thread_id, seq);
CREATE INDEX runs_active ON runs (thread_id, seq) WHERE status IN ('pending', 'running');
CREATE UNIQUE INDEX runs_one_running ON runs (thread_id) WHERE status = 'running';
CREATE UNIQUE INDEX runs_by_key ON runs (owner, thread_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE events (
    run_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    frames BLOB NOT NULL,
    PRIMARY KEY (run_seq, last_seq)
);
