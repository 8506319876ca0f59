-- Parts of large values: see the package documents. Where a column of references is set, the value beside it is the body
-- of a document, and the references, one after the other, are what is to be put into it.
CREATE TABLE parts (
    thread_id TEXT NOT NULL,
    ref TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX parts_by_ref ON parts (thread_id, ref);

-- Threads of which documents were removed. The epoch changes with every sweep that has removed parts.
CREATE TABLE part_sweeps (
    thread_id TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    due INTEGER NOT NULL
);
CREATE INDEX part_sweeps_due ON part_sweeps (thread_id) WHERE due = 1;

ALTER TABLE checkpoint_blobs ADD COLUMN refs TEXT;
ALTER TABLE checkpoint_writes ADD COLUMN refs TEXT;
ALTER TABLE events ADD COLUMN refs TEXT;
CREATE INDEX events_with_refs ON events (run_seq) WHERE refs IS NOT NULL;
ALTER TABLE runs ADD COLUMN result_refs TEXT;
ALTER TABLE threads ADD COLUMN state_refs TEXT;
