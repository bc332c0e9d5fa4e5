from datetime import timedelta

import pytest
import torch

from sztrain.cli import team


@pytest.fixture
def strategies(monkeypatch):
    """The strategies of the teams that were to be gathered; none of them is."""
    chosen = []

    class NoFabric:
        def __init__(self, *, strategy, **_options):
            chosen.append(strategy)

        def launch(self):
            pass

    monkeypatch.setattr(team, "Fabric", NoFabric)
    return chosen


def test_who_is_done_waits_for_the_others_however_long(strategies):
    """Lightning gives up after half an hour, in which no hard attack is done."""
    team.gather_team(torch.device("cpu"), devices=2)
    (strategy,) = strategies
    assert strategy._timeout > timedelta(days=7)


def test_one_process_needs_no_connection(strategies):
    team.gather_team(torch.device("cpu"), devices=1)
    assert strategies == ["auto"]
