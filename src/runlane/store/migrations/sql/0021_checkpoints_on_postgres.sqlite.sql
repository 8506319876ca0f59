-- SQLite has these tables already.
SELECT 1;
