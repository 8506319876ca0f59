"""Runlane against a hostile world, on a virtual clock, from a seed.

A simulation runs several processes of the real runtime over one ledger, while a seeded random generator delays, fails
and hangs their database operations, cuts processes off for longer than their leases, crashes and restarts them, and
lets clients admit, cancel, read and leave at bad moments. A checker then compares what callers were told, what agents
did and what the ledger holds with the promises P1 to P5. The same seed gives the same history.

    ./dev test tests/simulation                            # RUNLANE_SIM_SEEDS=300 seeds (the default)
    RUNLANE_SIM_SEED=17 ./dev test tests/simulation        # one seed
    PYTHONPATH=tests python -m simulation 17               # one seed, with its history
    PYTHONPATH=tests python -m simulation 0-2000           # many seeds, on all cores; prints those that fail
"""

from __future__ import annotations
