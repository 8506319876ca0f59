-- The newest migration of Procrastinate's tables that was applied to this schema.
CREATE TABLE job_migrations (
    version TEXT PRIMARY KEY
);
