-- Which graph a run executes; limits count by it. Runs of earlier versions have none, and count for no graph.
ALTER TABLE runs ADD COLUMN graph_id TEXT;
