-- A worker has one lease for all that it executes: expires_at is its end on the database's clock, a hint for people and
-- for doctor. runs.lease_expires_at is of earlier versions, and not used any more.
ALTER TABLE workers ADD COLUMN expires_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN build TEXT NOT NULL DEFAULT '';
ALTER TABLE workers ADD COLUMN capacity BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN draining BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN started_at BIGINT NOT NULL DEFAULT 0;
