-- expand
-- Whether a run that ended is in the totals.
ALTER TABLE runs ADD COLUMN counted BIGINT NOT NULL DEFAULT 0;
CREATE INDEX runs_uncounted ON runs (ended_at) WHERE ended_at IS NOT NULL AND counted = 0;

-- Runs that were deleted after their end and before they were counted: what the totals need of them. The trigger adds each,
-- whoever deletes it. usage is without the texts of messages.
CREATE TABLE deleted_runs (
    seq BIGINT PRIMARY KEY,
    run_id TEXT COLLATE "C" NOT NULL,
    thread_id TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    graph_id TEXT COLLATE "C",
    build TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL,
    end_reason TEXT COLLATE "C",
    not_before BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT NOT NULL,
    usage TEXT,
    error TEXT
);
CREATE FUNCTION keep_uncounted_run() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS '
BEGIN
    INSERT INTO deleted_runs (seq, run_id, thread_id, owner, graph_id, build, status, end_reason, not_before,
                              started_at, ended_at, usage, error)
      VALUES (OLD.seq, OLD.run_id, OLD.thread_id, OLD.owner, OLD.graph_id, OLD.build, OLD.status, OLD.end_reason,
              OLD.not_before, OLD.started_at, OLD.ended_at,
              CASE WHEN strpos(OLD.usage, '',"first_human_message"'') > 0
                THEN split_part(OLD.usage, '',"first_human_message"'', 1) || ''}'' END, OLD.error)
      ON CONFLICT DO NOTHING;
    RETURN NULL;
END';
CREATE OR REPLACE TRIGGER keep_uncounted_run AFTER DELETE ON runs FOR EACH ROW
    WHEN (OLD.ended_at IS NOT NULL AND OLD.counted = 0) EXECUTE FUNCTION keep_uncounted_run();

-- Runs that ended, by day of UTC since 1970. Each is counted in three grains: 'all' without its owner, 'owner' without graph,
-- build and reason, and 'full'; what a grain leaves out is ''.
CREATE TABLE run_totals (
    grain TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    graph_id TEXT COLLATE "C" NOT NULL,
    build TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    end_reason TEXT COLLATE "C" NOT NULL,
    runs BIGINT NOT NULL,
    executing_us BIGINT NOT NULL,
    queued_us BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    total_tokens BIGINT NOT NULL,
    first_ended_at BIGINT NOT NULL,
    last_ended_at BIGINT NOT NULL,
    PRIMARY KEY (grain, day, owner, graph_id, build, status, end_reason)
);
CREATE INDEX run_totals_of_build ON run_totals (build, day) WHERE grain = 'all';

-- Tokens of these runs, by model.
CREATE TABLE token_totals (
    grain TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    graph_id TEXT COLLATE "C" NOT NULL,
    build TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    llm_calls BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    total_tokens BIGINT NOT NULL,
    PRIMARY KEY (grain, day, owner, graph_id, build, model)
);

-- What happened in a minute, since 1970: runs that started, tokens, runs that ended by status and reason, and by run time.
CREATE TABLE minute_totals (
    minute BIGINT NOT NULL,
    series TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (minute, series)
);

-- Failures of a graph with the same error and message. group_id is a hash of the three. The message is without words that
-- have digits. threads is a JSON array of the least hashes of the threads' ids. run_id is the last failed run.
CREATE TABLE failure_groups (
    group_id TEXT COLLATE "C" PRIMARY KEY,
    graph_id TEXT COLLATE "C" NOT NULL,
    error TEXT NOT NULL,
    message TEXT NOT NULL,
    threads TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    first_build TEXT NOT NULL,
    last_build TEXT NOT NULL,
    run_id TEXT NOT NULL,
    thread_id TEXT NOT NULL
);
CREATE INDEX failure_groups_first ON failure_groups (first_at);
CREATE INDEX failure_groups_last ON failure_groups (last_at);
CREATE TABLE failure_totals (
    hour BIGINT NOT NULL,
    group_id TEXT COLLATE "C" NOT NULL,
    build TEXT COLLATE "C" NOT NULL,
    runs BIGINT NOT NULL,
    PRIMARY KEY (hour, group_id, build)
);
