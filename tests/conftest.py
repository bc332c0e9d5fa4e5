"""Settings of the whole suite."""

import os

# Its tensors are too small to share between threads, and threads that wait for a busy core cost
# far more than they bring. Set before torch is imported, for the processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
