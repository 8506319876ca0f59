-- expand
-- SQLite has no parallel scans.
SELECT 1;
