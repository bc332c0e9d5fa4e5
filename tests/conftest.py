"""Settings and fixtures of the whole suite."""

import io
import os
import random

import numpy as np
import pytest
import rich

# Its tensors are too small to share between threads, and threads that wait for a busy core cost
# far more than they bring. Set before torch is imported, for the processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _seeded():
    """What a test leaves to chance is the same in every run, alone or after others."""
    import torch  # not above: it reads the number of threads

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(params=[False, True], ids=["file", "terminal"])
def console(request):
    """Rich's console on a file that is none or one."""
    console = rich.get_console()
    before = console.__dict__.copy()
    rich.reconfigure(file=io.StringIO(), force_terminal=request.param, width=60)
    yield console
    console.__dict__ = before


@pytest.fixture
def clock(monkeypatch):
    """What `time.monotonic` says, in seconds; it stands still."""
    seconds = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds
