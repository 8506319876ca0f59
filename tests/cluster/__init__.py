"""A cluster of real server processes on one PostgreSQL, what is done to it, and what must be true of it afterwards."""
