"""Documents: large values as parts, so that what a thread has stored once is not stored again."""
