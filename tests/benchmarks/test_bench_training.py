"""The benchmark of the training keeps running and says what it measured."""

import re
import runpy
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_every_case_is_measured(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    script = runpy.run_path(str(Path(__file__).with_name("bench_training.py")))
    tiny = ["--num-samples", "16", "--num-steps", "2", "--batch-size", "8", "--rounds", "1"]
    chosen = ["--net", "digits_cnn", "--attack", "sigma_zero", "--method", "trades", "mart"]
    script["main"]([*tiny, *chosen, "--budget", "1", "4"])
    torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    pattern = r"digits_cnn, (\w+), sigma_zero, N=2, budget (\d): [\d.]+ standard epochs .* N \+ 2"
    found = [re.match(pattern, line).groups() for line in lines if "standard epochs" in line]
    assert found == [("trades", "1"), ("trades", "4"), ("mart", "1"), ("mart", "4")]
