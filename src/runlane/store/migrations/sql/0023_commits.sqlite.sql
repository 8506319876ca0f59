-- Of PostgreSQL only: SQLite has no connection that could lose an answer.
SELECT 1;
