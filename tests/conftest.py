"""Tests run side by side, one process a core: each computes on one thread, and so does what it starts."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
