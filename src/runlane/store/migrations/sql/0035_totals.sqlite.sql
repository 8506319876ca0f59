-- expand
-- Whether a run that ended is in the totals.
ALTER TABLE runs ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_uncounted ON runs (ended_at) WHERE ended_at IS NOT NULL AND counted = 0;

-- Runs that were deleted after their end and before they were counted: what the totals need of them. The trigger adds each,
-- whoever deletes it. usage is without the texts of messages.
CREATE TABLE deleted_runs (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    graph_id TEXT,
    build TEXT,
    status TEXT NOT NULL,
    end_reason TEXT,
    not_before INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER NOT NULL,
    usage TEXT,
    error TEXT
);
CREATE TRIGGER keep_uncounted_run AFTER DELETE ON runs WHEN OLD.ended_at IS NOT NULL AND OLD.counted = 0 BEGIN
    INSERT OR IGNORE INTO deleted_runs (seq, run_id, thread_id, owner, graph_id, build, status, end_reason, not_before,
                                      started_at, ended_at, usage, error)
      VALUES (OLD.seq, OLD.run_id, OLD.thread_id, OLD.owner, OLD.graph_id, OLD.build, OLD.status, OLD.end_reason,
              OLD.not_before, OLD.started_at, OLD.ended_at,
              CASE WHEN instr(OLD.usage, ',"first_human_message"') > 0
                THEN substr(OLD.usage, 1, instr(OLD.usage, ',"first_human_message"') - 1) || '}' END, OLD.error);
END;

-- Runs that ended, by day of UTC since 1970. Each is counted in three grains: 'all' without its owner, 'owner' without graph,
-- build and reason, and 'full'; what a grain leaves out is ''.
CREATE TABLE run_totals (
    grain TEXT NOT NULL,
    day INTEGER NOT NULL,
    owner TEXT NOT NULL,
    graph_id TEXT NOT NULL,
    build TEXT NOT NULL,
    status TEXT NOT NULL,
    end_reason TEXT NOT NULL,
    runs INTEGER NOT NULL,
    executing_us INTEGER NOT NULL,
    queued_us INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    first_ended_at INTEGER NOT NULL,
    last_ended_at INTEGER NOT NULL,
    PRIMARY KEY (grain, day, owner, graph_id, build, status, end_reason)
);
CREATE INDEX run_totals_of_build ON run_totals (build, day) WHERE grain = 'all';

-- Tokens of these runs, by model.
CREATE TABLE token_totals (
    grain TEXT NOT NULL,
    day INTEGER NOT NULL,
    owner TEXT NOT NULL,
    graph_id TEXT NOT NULL,
    build TEXT NOT NULL,
    model TEXT NOT NULL,
    llm_calls INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    PRIMARY KEY (grain, day, owner, graph_id, build, model)
);

-- What happened in a minute, since 1970: runs that started, tokens, runs that ended by status and reason, and by run time.
CREATE TABLE minute_totals (
    minute INTEGER NOT NULL,
    series TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (minute, series)
);

-- Failures of a graph with the same error and message. group_id is a hash of the three. The message is without words that
-- have digits. threads is a JSON array of the least hashes of the threads' ids. run_id is the last failed run.
CREATE TABLE failure_groups (
    group_id TEXT PRIMARY KEY,
    graph_id TEXT NOT NULL,
    error TEXT NOT NULL,
    message TEXT NOT NULL,
    threads TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    first_build TEXT NOT NULL,
    last_build TEXT NOT NULL,
    run_id TEXT NOT NULL,
    thread_id TEXT NOT NULL
);
CREATE INDEX failure_groups_first ON failure_groups (first_at);
CREATE INDEX failure_groups_last ON failure_groups (last_at);
CREATE TABLE failure_totals (
    hour INTEGER NOT NULL,
    group_id TEXT NOT NULL,
    build TEXT NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (hour, group_id, build)
);
