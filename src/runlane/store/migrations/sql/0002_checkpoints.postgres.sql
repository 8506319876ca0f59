-- On PostgreSQL the checkpoints and the long-term store have tables of LangGraph's own packages.
SELECT 1;
