-- A run's place among the starts of its thread, and the length of its lease; the place of a thread's state.
ALTER TABLE runs ADD COLUMN start_order BIGINT;
ALTER TABLE runs ADD COLUMN lease_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE threads ADD COLUMN state_order BIGINT NOT NULL DEFAULT 0;

UPDATE runs SET start_order = started.place FROM (
    SELECT seq, ROW_NUMBER() OVER (ORDER BY COALESCE(started_at, ended_at), seq) AS place
    FROM runs WHERE COALESCE(started_at, ended_at) IS NOT NULL
) AS started WHERE runs.seq = started.seq;
CREATE UNIQUE INDEX runs_by_start ON runs (thread_id, start_order) WHERE start_order IS NOT NULL;

-- Numbers of starts, for the whole ledger; none is given out again.
CREATE SEQUENCE start_orders;
SELECT setval('start_orders', COUNT(*) + 1) FROM runs;
