"""Learning-rate schedules against their closed form."""

import math

import pytest
import torch

from sztrain.errors import InputError
from sztrain.training.schedules import cosine, multistep


def rates(schedule, total_steps, lr=0.4, **options):
    """Learning rate of every step of a run, and the one that is left after it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = schedule(optimizer, total_steps, **options)
    found = []
    for _ in range(total_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found, optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("total_steps", [1, 2, 10])
def test_cosine_without_warmup(total_steps):
    found, left = rates(cosine, total_steps)
    expected = [0.2 * (1 + math.cos(math.pi * step / total_steps)) for step in range(total_steps)]
    assert found == pytest.approx(expected)
    assert found[0] == 0.4
    assert left == pytest.approx(0, abs=1e-12)


def test_cosine_with_warmup():
    found, left = rates(cosine, 12, warmup=0.25)
    rise = [0.1, 0.2, 0.3]
    fall = [0.2 * (1 + math.cos(math.pi * step / 9)) for step in range(9)]
    assert found == pytest.approx(rise + fall)
    assert max(found) == 0.4
    assert left == pytest.approx(0, abs=1e-12)


def test_cosine_scales_every_group():
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    scheduler = cosine(optimizer, 4)
    optimizer.step()
    scheduler.step()
    share = (1 + math.cos(math.pi / 4)) / 2
    assert scheduler.get_last_lr() == pytest.approx([share, 0.1 * share])


@pytest.mark.parametrize("warmup", [-0.1, 1.0, math.nan])
def test_cosine_refuses_a_warmup_out_of_range(warmup):
    with pytest.raises(InputError, match=r"`warmup` to be in \[0, 1\)"):
        rates(cosine, 10, warmup=warmup)


def test_multistep_falls_at_its_milestones():
    found, _ = rates(multistep, 8)
    assert found == pytest.approx([0.4] * 2 + [0.04] * 4 + [0.004] * 2)
    found, _ = rates(multistep, 10, milestones=(0.5, 0.5, 0.86), gamma=0.5)
    assert found == pytest.approx([0.4] * 5 + [0.1] * 4 + [0.05])


@pytest.mark.parametrize("milestone", [0, 1, 25, -0.5, math.nan, "a", None])
def test_multistep_refuses_milestones_that_are_no_shares(milestone):
    with pytest.raises(InputError, match=r"`milestones` to be in \(0, 1\)"):
        rates(multistep, 10, milestones=(0.5, milestone))
