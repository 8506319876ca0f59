-- What a thread without values shows while a run goes on: a state of that run. It is gone with the run's end.
ALTER TABLE threads ADD COLUMN first_values TEXT;
