"""How long and how much: a two-minute slice by default, the whole of it by `make chaos`."""

import os
import random

#: How long the mixed faults last.
SECONDS = float(os.environ.get("CHAOS_SECONDS", "20"))
#: Decides which faults come in which order; printed with every figure.
SEED = int(os.environ.get("CHAOS_SEED", str(random.SystemRandom().randrange(10**6))))
#: `fake`: an engine that sleeps; `real`: the bundled model.
ENGINE = os.environ.get("CHAOS_ENGINE", "fake")
#: The whole of every scenario, and not a slice.
IS_FULL = bool(os.environ.get("CHAOS_FULL"))
#: How long the object store is away each time, from and to: up to a minute in a run of forty.
OUTAGE_SECONDS = (1.0, max(4.0, min(60.0, SECONDS / 40)))
WORKERS = 2
CLIENTS = int(os.environ.get("CHAOS_CLIENTS", "4"))
