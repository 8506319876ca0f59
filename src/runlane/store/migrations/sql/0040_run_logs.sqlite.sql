-- expand
-- The newest log records of each attempt at a run. A row is a segment: records that were stored together.
CREATE TABLE run_logs (
    run_seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    first_number INTEGER NOT NULL,
    last_number INTEGER NOT NULL,
    records BLOB NOT NULL,
    PRIMARY KEY (run_seq, attempt, first_number)
);
