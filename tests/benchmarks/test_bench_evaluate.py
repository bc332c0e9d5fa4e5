"""The benchmark of the evaluation keeps running and says what it measured."""

import re
import runpy
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_both_parts_are_measured(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    script = runpy.run_path(str(Path(__file__).with_name("bench_evaluate.py")))
    tiny = ["--num-samples", "8", "--num-steps", "2", "--batch-size", "4", "--rounds", "1"]
    script["main"](["--net", "digits_standard", *tiny])
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert re.search(r"runner: median overhead \+[\d.]+%", out)
    assert "same records" in out
    assert re.search(r"processes: median [\d.]+ x", out)
