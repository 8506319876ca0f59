-- LangGraph's checkpoints. Every row names the run that wrote it, so that a run can be taken back exactly: a row never
-- replaces another run's row, and the newest one is read.
CREATE TABLE checkpoints (
    seq INTEGER PRIMARY KEY,
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    parent_id TEXT,
    type TEXT NOT NULL,
    checkpoint BLOB NOT NULL,
    metadata_type TEXT NOT NULL,
    metadata BLOB NOT NULL
);
CREATE UNIQUE INDEX checkpoints_by_id ON checkpoints (thread_id, checkpoint_ns, checkpoint_id, run_id);

-- One value of one channel. A version that has no row is an empty channel.
CREATE TABLE checkpoint_blobs (
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL,
    channel TEXT NOT NULL,
    version TEXT NOT NULL,
    run_id TEXT NOT NULL,
    type TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
) WITHOUT ROWID;

-- One call of put_writes; seq counts the calls of a checkpoint.
CREATE TABLE checkpoint_writes (
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    task_path TEXT NOT NULL,
    type TEXT NOT NULL,
    writes BLOB NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, seq)
) WITHOUT ROWID;

-- LangGraph's long-term store. A namespace is its labels, each followed by a period, which no label may contain.
CREATE TABLE store_items (
    owner TEXT NOT NULL,
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ttl_us INTEGER,
    expires_at INTEGER,
    PRIMARY KEY (owner, namespace, key)
);
CREATE INDEX store_items_expiring ON store_items (expires_at) WHERE expires_at IS NOT NULL;
