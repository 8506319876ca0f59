-- When a thread expires: ttl_us after updated_at. swept_at is when it was last pruned for it, so that it is pruned once.
ALTER TABLE threads ADD COLUMN ttl_us BIGINT;
ALTER TABLE threads ADD COLUMN ttl_strategy TEXT;
ALTER TABLE threads ADD COLUMN swept_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX threads_expiring ON threads ((updated_at + ttl_us)) WHERE ttl_us IS NOT NULL AND swept_at < updated_at;
