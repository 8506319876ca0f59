-- expand
-- The ids of the newest runs that a cron has started, the newest first.
ALTER TABLE crons ADD COLUMN recent_run_ids TEXT NOT NULL DEFAULT '[]';
