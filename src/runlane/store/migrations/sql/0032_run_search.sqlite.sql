-- expand
-- Runs of an owner, and those that did not succeed, from the newest on.
CREATE INDEX runs_by_owner ON runs (owner, seq);
CREATE INDEX runs_unsuccessful ON runs (seq) WHERE status IN ('error', 'interrupted', 'timeout');
CREATE INDEX runs_unsuccessful_by_owner ON runs (owner, seq) WHERE status IN ('error', 'interrupted', 'timeout');
