-- The last write of each connection, which sets its row in the same transaction: whether a commit whose answer was lost
-- was made is read here. Its rows change with every write, so few of them share a page.
CREATE TABLE commits (
    connection BIGINT PRIMARY KEY,
    last BIGINT NOT NULL,
    written_at BIGINT NOT NULL
) WITH (fillfactor = 10);
