-- There are no checkpoints and no long-term store on PostgreSQL yet.
SELECT 1;
