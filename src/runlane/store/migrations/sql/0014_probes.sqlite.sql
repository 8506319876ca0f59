-- What a health check writes, since a database that can only be read accepts nothing. It has one row.
CREATE TABLE probes (
    place INTEGER PRIMARY KEY,
    written_at INTEGER NOT NULL,
    filler TEXT NOT NULL
);
