"""Who attacks in a mix, how often, and as what; the rest is in test_conformance.py."""

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from sztrain.attacks import FMN, AttackMix, SigmaZero, SparsePGD, SparseRS
from sztrain.errors import InputError

EVEN = dict.fromkeys(AttackMix().members, 2)


@dataclass(frozen=True, kw_only=True)
class Noting:
    """Answers with itself."""

    num_steps: int = 9
    unit: str = "features"
    budget: int | None = None
    calls: list = field(default_factory=list, compare=False)

    def __call__(self, net, inputs, labels):
        self.calls.append((net, inputs, labels))
        return self


def test_members_are_drawn_as_often_as_their_weights_say():
    members = {"first": Noting(), "second": SparseRS(), "never": Noting()}
    mix = AttackMix(members=members, weights={"second": 3, "first": 1, "never": 0})
    found = Counter(mix.drawn(seed)[0] for seed in range(2000))
    assert found["never"] == 0
    assert found["second"] / 2000 == pytest.approx(0.75, abs=0.04)  # four standard errors
    assert mix.drawn(11) == mix.drawn(11)


def test_the_member_attacks_under_the_orders_of_the_mix():
    members = {"few": SparsePGD(num_steps=12), "many": SparseRS(num_steps=600, seed=3, budget=1)}
    mix = AttackMix(
        members=members,
        weights={"few": 1, "many": 1},
        num_steps=50,
        unit="pixels",
        recheck=False,
    )
    mix = replace(mix, budget=4, seed=17)  # as a training does with any attack
    given = {"unit": "pixels", "budget": 4, "recheck": False}
    drawn = dict(mix.drawn(seed) for seed in range(17, 40))
    for name, member in drawn.items():
        steps = {"few": 12, "many": 50}[name]
        expected = replace(members[name], num_steps=steps, seed=member.seed, **given)
        assert member == expected
    assert len(drawn) == 2
    assert {mix.drawn(seed)[1].seed for seed in (5, 6)} == {5, 6}


def test_a_call_is_the_call_of_the_member_that_the_seed_draws():
    members = {"one": Noting(), "two": Noting()}
    batch = object(), torch.rand(2, 3), torch.zeros(2, dtype=torch.int64)
    for seed in range(8):
        mix = AttackMix(members=members, weights={"one": 1, "two": 1}, num_steps=5, seed=seed)
        name, _ = mix.drawn(seed)
        answer = mix(*batch)
        assert answer.calls is members[name].calls  # the very list, which `replace` hands on
        assert answer.calls[-1] == batch
        assert (answer.num_steps, answer.unit, answer.budget) == (5, "features", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"sigma_zero": 1}}, "`weights` to name each of `members` once"),
        ({"members": {}, "weights": {}}, "above 0 for at least one member"),
        ({"weights": dict.fromkeys(EVEN, 0)}, "above 0 for at least one member"),
        ({"weights": EVEN | {"sigma_zero": -1}}, "`weights.sigma_zero` to be at least 0"),
        ({"members": {"a": "fmn"}, "weights": {"a": 1}}, "`members.a` to be an attack"),
        ({"members": {"a": FMN()}, "weights": {"a": 1}, "unit": "pixels"}, "FMN changes single"),
        ({"seed": -1}, "`seed` to be at least 0, got -1"),
    ],
)
def test_what_cannot_be_mixed_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        AttackMix(**options)


def test_a_search_for_the_budget_needs_its_steps():
    mix = AttackMix(num_steps=5)
    with pytest.raises(InputError, match="`num_steps` to be at least 10 without a budget"):
        mix.check_search()
    # Not where chance draws a member that needs more, but every time.
    net, inputs = nn.Linear(4, 2), torch.rand(2, 4)
    for seed in range(8):
        with pytest.raises(InputError, match="`num_steps` to be at least 10 without a budget"):
            replace(mix, seed=seed)(net, inputs, torch.tensor([0, 1]))
    replace(mix, budget=1).check_search()
    AttackMix(members={"a": SigmaZero()}, weights={"a": 1}, num_steps=1).check_search()
    never_drawn = {"a": SigmaZero(), "b": SparsePGD()}
    AttackMix(members=never_drawn, weights={"a": 1, "b": 0}, num_steps=1).check_search()
