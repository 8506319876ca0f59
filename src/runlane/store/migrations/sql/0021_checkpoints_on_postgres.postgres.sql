-- LangGraph's checkpoints. Every row names the run that wrote it, so that a run can be taken back exactly: a row never
-- replaces another run's row, and the newest one is read.
CREATE TABLE checkpoints (
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    thread_id TEXT COLLATE "C" NOT NULL,
    checkpoint_ns TEXT COLLATE "C" NOT NULL,
    checkpoint_id TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL,
    parent_id TEXT COLLATE "C",
    type TEXT NOT NULL,
    checkpoint BYTEA NOT NULL,
    metadata_type TEXT NOT NULL,
    metadata BYTEA NOT NULL
);
-- By number, so that the newest row is the last of its key. SQLite's is by run, which INSERT OR REPLACE needs there.
CREATE UNIQUE INDEX checkpoints_by_id ON checkpoints (thread_id, checkpoint_ns, checkpoint_id, seq);

-- One value of one channel. A version that has no row is an empty channel.
CREATE TABLE checkpoint_blobs (
    thread_id TEXT COLLATE "C" NOT NULL,
    checkpoint_ns TEXT COLLATE "C" NOT NULL,
    channel TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL,
    type TEXT NOT NULL,
    value BYTEA NOT NULL,
    refs TEXT,
    PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
);

-- One call of put_writes; seq is the order of the calls.
CREATE TABLE checkpoint_writes (
    thread_id TEXT COLLATE "C" NOT NULL,
    checkpoint_ns TEXT COLLATE "C" NOT NULL,
    checkpoint_id TEXT COLLATE "C" NOT NULL,
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    run_id TEXT COLLATE "C" NOT NULL,
    task_id TEXT COLLATE "C" NOT NULL,
    task_path TEXT NOT NULL,
    type TEXT NOT NULL,
    writes BYTEA NOT NULL,
    refs TEXT,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, seq)
);

-- LangGraph's long-term store. A namespace is its labels, each followed by a period, which no label may contain.
-- The vectors of an item are one after the other: numbers of 4 bytes, little-endian, each vector of length 1.
CREATE TABLE store_items (
    owner TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    value BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    ttl_us BIGINT,
    expires_at BIGINT,
    vectors BYTEA,
    PRIMARY KEY (owner, namespace, key)
);
CREATE INDEX store_items_expiring ON store_items (expires_at) WHERE expires_at IS NOT NULL;

-- How many numbers each vector has: one row, once there has been an index.
CREATE TABLE store_index (
    dims BIGINT NOT NULL
);
