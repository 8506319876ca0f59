-- On PostgreSQL there is no long-term store yet.
SELECT 1;
