-- The input of a run if it is large: JSON text, or the body of a document with the references of its parts. It is not in
-- the column kwargs then.
ALTER TABLE runs ADD COLUMN input TEXT;
ALTER TABLE runs ADD COLUMN input_refs TEXT;
