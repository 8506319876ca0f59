-- expand
-- The newest log records of each attempt at a run. A row is a segment: records that were stored together.
CREATE TABLE run_logs (
    run_seq BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    first_number BIGINT NOT NULL,
    last_number BIGINT NOT NULL,
    records BYTEA NOT NULL,
    PRIMARY KEY (run_seq, attempt, first_number)
);
