-- A run's place among the starts of its thread, and the length of its lease; the place of a thread's state.
ALTER TABLE runs ADD COLUMN start_order INTEGER;
ALTER TABLE runs ADD COLUMN lease_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE threads ADD COLUMN state_order INTEGER NOT NULL DEFAULT 0;

UPDATE runs SET start_order = started.place FROM (
    SELECT seq, ROW_NUMBER() OVER (ORDER BY COALESCE(started_at, ended_at), seq) AS place
    FROM runs WHERE COALESCE(started_at, ended_at) IS NOT NULL
) AS started WHERE runs.seq = started.seq;
CREATE UNIQUE INDEX runs_by_start ON runs (thread_id, start_order) WHERE start_order IS NOT NULL;

-- Numbers of starts, for the whole ledger; none is given out again.
CREATE TABLE start_orders (
    newest INTEGER NOT NULL
);
INSERT INTO start_orders (newest) SELECT COUNT(*) FROM runs;
