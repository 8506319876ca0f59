"""How pending runs reach a worker."""
