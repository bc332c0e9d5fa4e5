"""The benchmark of the attacks keeps running and says what it measured."""

import re
import runpy
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_every_attack_is_measured(capsys):
    threads = torch.get_num_threads()
    script = runpy.run_path(str(Path(__file__).with_name("bench_attacks.py")))
    tiny = ["--attacks", "sigma_zero:4,gse:8", "--batch-size", "8", "--rounds", "1"]
    script["main"](["--net", "digits_standard", *tiny])
    torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "digits_standard, sigma_zero",
        "digits_standard, gse",
    ]
    # One forward pass more than steps for the last iterate, one for the check.
    assert re.search(r": 6 forward and 4 backward passes a sample, median [\d.]+ x", lines[0])
