-- The thread of a stateless run is not listed, and is deleted ttl_us after its run has ended. Those of earlier versions,
-- which were deleted at once, are given five minutes.
ALTER TABLE threads ADD COLUMN temporary INTEGER NOT NULL DEFAULT 0;
UPDATE threads SET temporary = 1, ttl_us = 300000000, ttl_strategy = 'delete'
  WHERE thread_id IN (SELECT thread_id FROM runs WHERE temporary = 1);
