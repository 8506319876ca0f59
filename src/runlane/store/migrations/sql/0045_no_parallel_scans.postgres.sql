-- expand
-- No statement of these tables takes a second processor: to start processes for it costs more than it saves of a list, and
-- runs need the processors.
ALTER TABLE runs SET (parallel_workers = 0);
ALTER TABLE threads SET (parallel_workers = 0);
ALTER TABLE thread_terms SET (parallel_workers = 0);
ALTER TABLE events SET (parallel_workers = 0);
ALTER TABLE run_totals SET (parallel_workers = 0);
ALTER TABLE token_totals SET (parallel_workers = 0);
