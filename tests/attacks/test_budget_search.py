"""The search over the budget, with attacks of which it is known what budget they need."""

from math import inf

import pytest
import torch

from sztrain.attacks.base import Found
from sztrain.attacks.budget_search import search_budgets


class Needing:
    """An attack that breaks sample i with a budget of ``needed[i]``, and notes what it is asked.

    The features of a sample are its number; of what the budget allows it leaves ``unused``.
    """

    def __init__(self, needed, unused=0):
        self.needed = torch.tensor(needed)
        self.unused = unused
        self.rounds = []

    def __call__(self, inputs, labels, budgets):
        index = inputs[:, 0].long()
        assert torch.equal(labels, index + 7)
        self.rounds.append(dict(zip(index.tolist(), budgets.tolist(), strict=True)))
        l0 = torch.where(budgets >= self.needed[index], budgets - self.unused, inf)
        ones = torch.ones_like(labels)
        return Found(
            best_inputs=inputs + l0.unsqueeze(1),  # tells which example this is
            best_l0=l0.float(),
            last_inputs=inputs - budgets.unsqueeze(1),
            num_forwards=ones,
            num_backwards=2 * ones,
        )

    def budgets_of(self, i):
        return [budgets[i] for budgets in self.rounds if i in budgets]


def search(attack, **options):
    index = torch.arange(len(attack.needed))
    inputs = index.unsqueeze(1).repeat(1, 3).double()
    return inputs, search_budgets(attack, inputs, index + 7, **options)


def budgets_by_the_paper(needed, num_units, num_rounds, initial_budget):
    """The budgets of one sample: double until a success, bisect from then on."""
    low, high, budget, budgets = 0, inf, min(initial_budget, num_units), []
    for _ in range(num_rounds):
        budgets.append(budget)
        if budget >= needed:
            high = budget
        else:
            low = budget
        budget = min(2 * low, num_units) if high == inf else (low + high) // 2
        if high < inf and high - low <= 1:
            break
    return budgets


NEEDED = [1, 2, 24, 50, 99, 100, 101, 128, 200, 399, 700, 783, 784, inf]


@pytest.mark.parametrize("num_rounds", [1, 4, 10, 13])
@pytest.mark.parametrize("initial_budget", [1, 25, 100, 784, 1000])
def test_each_sample_takes_the_budgets_of_the_paper(num_rounds, initial_budget):
    attack = Needing(NEEDED)
    options = {"num_units": 784, "num_rounds": num_rounds, "initial_budget": initial_budget}
    inputs, found = search(attack, **options)
    for i, needed in enumerate(NEEDED):
        expected = budgets_by_the_paper(needed, **options)
        assert attack.budgets_of(i) == expected
        assert found.num_forwards[i] == len(expected)
        assert found.num_backwards[i] == 2 * len(expected)
        best = min((budget for budget in expected if budget >= needed), default=inf)
        assert found.best_l0[i] == best
        if best < inf:
            assert torch.equal(found.best_inputs[i], inputs[i] + best)
        else:
            assert torch.equal(found.best_inputs[i], inputs[i])
        assert torch.equal(found.last_inputs[i], inputs[i] - expected[-1])


def test_the_smallest_budget_is_found_exactly_where_there_are_rounds_enough():
    attack = Needing(NEEDED)
    _, found = search(attack, num_units=784, num_rounds=14)
    assert found.best_l0.tolist() == NEEDED
    assert len(attack.rounds) == 14  # the last sample cannot be broken: it uses all of them
    below_the_first = NEEDED.index(100) + 1
    _, found = search(Needing(NEEDED[:below_the_first]), num_units=784)
    assert found.best_l0.tolist() == NEEDED[:below_the_first]


def test_nobody_is_attacked_once_nothing_is_left_to_be_found():
    attack = Needing([1, 1, 1])
    search(attack, num_units=784)
    # 100, 50, 25, 12, 6, 3, 1: then a budget of 0 would be left
    assert [budgets[0] for budgets in attack.rounds] == [100, 50, 25, 12, 6, 3, 1]


def test_the_sparsest_example_is_kept_though_it_was_not_the_last():
    class Wasteful(Needing):
        """Leaves more of a large budget unused than of a small one."""

        def __call__(self, inputs, labels, budgets):
            self.unused = torch.where(budgets == 100, 60, 0)
            return super().__call__(inputs, labels, budgets)

    inputs, found = search(Wasteful([45]), num_units=784)
    assert found.best_l0.tolist() == [40]
    assert torch.equal(found.best_inputs, inputs + 40)


def test_only_what_is_sparser_than_what_is_known_is_looked_for():
    attack = Needing([12, 12, 12, 12, 1, 500])
    known = torch.tensor([20.0, 12.0, 13.0, inf, 1.0, 100.0])
    _, found = search(attack, num_units=784, known_l0=known)
    assert found.best_l0.tolist() == [12, inf, 12, 12, inf, inf]
    assert attack.budgets_of(0) == [10, 15, 12, 11]
    assert max(attack.budgets_of(1)) < 12
    assert attack.budgets_of(3)[0] == 100  # nothing is known there
    assert attack.budgets_of(4) == []  # nothing is sparser than 1
    assert found.num_forwards[4] == 0
    assert max(attack.budgets_of(5)) < 100
