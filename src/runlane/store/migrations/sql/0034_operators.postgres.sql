-- expand
-- What explains a run: the build and the start of its last attempt, the attempts before it, who cancelled it, and the
-- thread's newest checkpoint when it ended.
ALTER TABLE runs ADD COLUMN build TEXT;
ALTER TABLE runs ADD COLUMN claimed_at BIGINT;
ALTER TABLE runs ADD COLUMN past_attempts TEXT;
ALTER TABLE runs ADD COLUMN cancel_source TEXT;
ALTER TABLE runs ADD COLUMN kept_checkpoint TEXT;

-- When an API key was used last, to the hour.
CREATE TABLE key_uses (
    key_id TEXT COLLATE "C" PRIMARY KEY,
    last_used_at BIGINT NOT NULL
);

-- What operators did. audit_id sorts by time; status is that of the answer, NULL until there is one.
CREATE TABLE audit (
    audit_id TEXT COLLATE "C" PRIMARY KEY,
    recorded_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    key_id TEXT,
    action TEXT NOT NULL,
    route TEXT NOT NULL,
    subject TEXT NOT NULL,
    request_id TEXT,
    address TEXT,
    status BIGINT
);
