-- One process needs nothing that carries permits to others. The groups that a worker claims are for people to see.
ALTER TABLE workers ADD COLUMN groups TEXT;
