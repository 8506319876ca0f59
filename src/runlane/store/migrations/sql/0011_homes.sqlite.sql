-- The worker in whose process a run's code lives; without one, every worker that has the run's graph can execute it.
ALTER TABLE runs ADD COLUMN home TEXT;

-- Workers that live, of a ledger that many share. Each raises its beats; a row that stands still is one of a dead one.
CREATE TABLE workers (
    worker_id TEXT PRIMARY KEY,
    beats INTEGER NOT NULL,
    lease_us INTEGER NOT NULL
);
