-- On SQLite, which one process uses, the lanes' heads are in its memory.
SELECT 1;
