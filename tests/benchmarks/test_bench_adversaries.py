"""What the comparison of adversaries says is what their examples are like."""

import re
import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sztrain.types import AttackResult

SCRIPT = Path(__file__).with_name("bench_adversaries.py")


@dataclass(frozen=True)
class Painter:
    """Sets two places of each image to 1, one of them by the seed; calls the first image broken."""

    budget: int = 2
    unit: str = "features"
    num_steps: int = 1
    seed: int = 0

    def __call__(self, net, inputs, labels):
        moved = inputs.clone()
        moved[:, 0] = moved[:, 1 + self.seed] = 1.0
        success = torch.arange(len(inputs)) == 0
        zeros = torch.zeros(len(inputs), dtype=torch.int64)
        return AttackResult(
            adv_inputs=torch.where(success[:, None], moved, inputs),
            success=success,
            l0=torch.where(success, 2.0, torch.inf),
            num_forwards=zeros,
            num_backwards=zeros,
            last_inputs=moved,
            best_inputs=moved,
        )


def test_the_figures_are_those_of_the_examples():
    figures = runpy.run_path(str(SCRIPT))["figures"]
    net = torch.nn.Linear(4, 2, bias=False)
    torch.nn.init.zeros_(net.weight)
    images = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
    found = figures(net, Painter(), images, torch.tensor([0, 1]))
    assert found == {
        "broken": 50,
        "loss": pytest.approx(0.6931, abs=1e-4),  # of two classes alike
        "changed": 2,
        "size": 0.75,  # 0.5 and 0.5 in the one, 1 and 1 in the other
        "same places": pytest.approx(100 / 3),  # one of three
    }


def test_every_adversary_has_a_line(capsys):
    script = runpy.run_path(str(SCRIPT))
    threads = torch.get_num_threads()
    script["main"](["--num-samples", "4", "--num-steps", "2", "--budget", "2"])
    torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    pattern = r"digits_sparse_at, (.+), N=2, budget 2: broken [\d.]+, loss .+, same places [\d.]+"
    assert [re.fullmatch(pattern, line).group(1) for line in lines] == list(script["ADVERSARIES"])
