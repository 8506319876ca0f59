-- expand
-- Threads of all owners that are listed, from the one that changed last on.
CREATE INDEX threads_by_change ON threads (updated_at, thread_id) WHERE temporary = 0;
