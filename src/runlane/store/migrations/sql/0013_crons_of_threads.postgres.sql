-- Crons are deleted with their thread.

CREATE INDEX crons_by_thread ON crons (thread_id) WHERE thread_id IS NOT NULL;
