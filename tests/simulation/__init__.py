"""Runlane against a hostile world, on a virtual clock, from a seed.

A simulation runs several processes of the real runtime over one ledger, while a seeded random generator delays, fails
and hangs their database operations, loses their notices, sets their clocks, cuts them off and lets them stand still for
longer than their leases, crashes and restarts them at any await, and lets clients admit, cancel, read and leave at bad
moments. A checker then compares what callers were told, what agents did and what the ledger holds with the promises P1
to P8. The same seed gives the same history. See docs/explanation/simulation.md.

    ./dev test tests/simulation                            # RUNLANE_SIM_SEEDS=500 seeds (the default)
    RUNLANE_SIM_SEED=17 ./dev test tests/simulation        # one seed
    ./dev simulate 17                                      # one seed, with its history
    ./dev simulate 0-20000                                 # many seeds, on all cores
    ./dev simulate --for 10m                               # as many as there is time for, from a random one on
    ./dev simulate 17 --export                             # have the tests run this seed from now on
"""

from __future__ import annotations
