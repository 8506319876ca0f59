-- A thread's row says which run is its lane's head: the pending run that may start, or the one that is due first, while
-- nothing of the thread executes. head_group is who can run it, head_due 0 or the instant until which it is delayed.
ALTER TABLE threads ADD COLUMN head_seq BIGINT;
ALTER TABLE threads ADD COLUMN head_group TEXT COLLATE "C";
ALTER TABLE threads ADD COLUMN head_owner TEXT COLLATE "C";
ALTER TABLE threads ADD COLUMN head_assistant TEXT COLLATE "C";
ALTER TABLE threads ADD COLUMN head_due BIGINT;
ALTER TABLE threads ADD COLUMN head_home TEXT;

UPDATE threads SET head_seq = head.seq, head_group = COALESCE(head.graph_id, ''), head_owner = head.owner,
    head_assistant = COALESCE(head.assistant_id, ''), head_home = head.home,
    head_due = CASE WHEN head.not_before > head.created_at THEN head.not_before ELSE 0 END
  FROM (SELECT DISTINCT ON (thread_id) thread_id, seq, graph_id, owner, assistant_id, home, not_before, created_at
        FROM runs WHERE status = 'pending'
        ORDER BY thread_id, CASE WHEN not_before > created_at THEN not_before ELSE 0 END, seq) AS head
  WHERE head.thread_id = threads.thread_id
    AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.thread_id = threads.thread_id AND status = 'running');

CREATE INDEX threads_heads ON threads (head_group, head_owner, head_assistant, head_due, head_seq)
  WHERE head_seq IS NOT NULL AND head_home IS NULL;
CREATE INDEX threads_heads_at_home ON threads (head_seq) WHERE head_home IS NOT NULL;
CREATE INDEX runs_running ON runs (owner) WHERE status = 'running';
