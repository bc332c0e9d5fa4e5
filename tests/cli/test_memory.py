"""The C library keeps what is freed: told by the pages that the system had to clear."""

import ctypes
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from sztrain.cli.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(12_000_000)  # 48 MB, more than the largest threshold of glibc
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.ones(12_000_000)
unkept = faults()
assert keep_freed_memory()
torch.ones(15_000_000)  # with room for what is put into the gap meanwhile
print(unkept, faults())
"""


def has_mallopt():
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.slow
@pytest.mark.skipif(not has_mallopt(), reason="no glibc: nothing to tell it")
def test_a_block_that_was_freed_costs_no_page_faults_again():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120
    )
    unkept, kept = map(int, done.stdout.split())
    assert kept < unkept / 2


def test_another_c_library_changes_nothing(monkeypatch):
    from sztrain.cli import memory

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed_memory() is False
