-- One process needs nothing that carries permits to others.
SELECT 1;
