-- expand
-- min_reader: the oldest revision that code must know to use this schema. revision: the newest that a worker's code knows.
ALTER TABLE runlane_version ADD COLUMN min_reader VARCHAR(32);
ALTER TABLE workers ADD COLUMN revision TEXT;
-- The group of the run that left the thread interrupted, if it goes on in one build only: who answers, goes on there too.
ALTER TABLE threads ADD COLUMN paused_in TEXT;
