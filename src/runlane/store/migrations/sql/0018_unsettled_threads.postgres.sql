-- Threads that wait for a person, or have failed: few among many, and what an inbox asks for.
CREATE INDEX threads_unsettled ON threads (status, updated_at) WHERE status IN ('error', 'interrupted');
