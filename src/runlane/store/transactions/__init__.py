"""The ledger's named statements, and the transactions that use them, written once for all databases.

Lock order, on PostgreSQL; SQLite has one writer. A transaction that waits for a lock holds none of a later place:

1. the lock of a purge, or of the threads that a batch is about to make, by their ids (advisory locks);
2. threads; several by their ids, or without waiting (``SKIP LOCKED``), as claims do;
3. crons;
4. the locks of limits (advisory locks), by their keys; only claims wait for them;
5. runs; several of one thread in the order of admission, or without waiting;
6. what hangs on a run or a thread: events, checkpoints, parts, deliveries of webhooks;
7. marks of threads that are to be swept; several by their ids.

A worker's row is locked by that worker alone, in a transaction that locks nothing else. Work on many threads (rescues,
crons, purges, sweeps, flushes of several runs) waits neither for a thread nor for a run: it leaves what is locked for
later. ``tests/contract/test_interleavings.py`` tries each pair of operations on one thread.
"""

from __future__ import annotations
