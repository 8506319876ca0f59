-- What a health check writes, since a database that can only be read accepts nothing. It has one row.
CREATE TABLE probes (
    place BIGINT PRIMARY KEY,
    written_at BIGINT NOT NULL,
    filler TEXT NOT NULL
);
