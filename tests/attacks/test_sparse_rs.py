"""Sparse-RS: every candidate that it sends to the net, looked at from outside."""

from math import floor

import pytest
import torch
from torch import nn

from sztrain.attacks import SparseRS, sparse_rs
from sztrain.attacks._moves import Move, move_sizes, other_corners
from sztrain.attacks.sparse_rs import DIVISORS, stage_of
from sztrain.errors import InputError
from sztrain.losses import difference_of_logits


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Firm(nn.Module):
    """Logits of which the first is always the largest, by more or less."""

    def __init__(self, size):
        super().__init__()
        self.linear = nn.Linear(size, 3).double()
        self.linear.weight.data.normal_(std=0.1, generator=seeded(1))
        self.linear.bias.data = torch.tensor([9.0, 0.0, 0.0]).double()

    def forward(self, inputs):
        return self.linear(inputs.flatten(1))


# ---- the schedule -------------------------------------------------------------------------------


def share_by_the_paper(query, num_queries, alpha):
    """α at a query, by the schedule for 10,000 queries stretched to any number."""
    j = int(10_000 * query / num_queries)
    steps = {0: 1, 50: 2, 200: 4, 500: 5, 1000: 6, 2000: 8, 4000: 10, 6000: 12, 8000: 15}
    return alpha / next((divisor for last, divisor in steps.items() if j <= last), 20)


@pytest.mark.parametrize("num_queries", [1, 7, 40, 400, 10_000])
def test_the_share_of_moved_members_falls_as_in_the_paper(num_queries):
    for alpha in (0.8, 0.3):
        for query in range(1, num_queries):
            found = alpha / DIVISORS[stage_of(query, num_queries)]
            assert found == share_by_the_paper(query, num_queries, alpha)


@pytest.mark.parametrize("num_positions", [30, 100])
def test_as_many_members_move_as_the_formula_says(num_positions):
    shares = [0.8, 0.3, 0.8 / 12, 0.04]
    sizes = move_sizes(torch.arange(1, num_positions + 1), num_positions, shares).tolist()
    for k in range(1, num_positions + 1):
        room = num_positions - k or num_positions
        assert sizes[k - 1] == [min(max(floor(share * k), 1), room) for share in shares]


# ---- what is sent to the net --------------------------------------------------------------------


def check_candidates(seen, logits, x, k, attack):
    """Follow the best image through all candidates of one sample; returns it.

    x lies inside the box, so that what was changed is what differs: the members are known.
    """
    num_positions = x.shape[-1]
    best = best_loss = None
    for query, (z, answer) in enumerate(zip(seen, logits, strict=True)):
        members = (z != x).any(dim=0)
        assert members.sum() == k
        assert ((z == 0) | (z == 1))[:, members].all()
        if query > 0:
            before = (best != x).any(dim=0)
            size = max(int(share_by_the_paper(query, len(seen), attack.alpha) * k), 1)
            if k < num_positions:
                size = min(size, k, num_positions - k)
                assert (members & ~before).sum() == (before & ~members).sum() == size
                assert torch.equal(z[:, members & before], best[:, members & before])
            else:
                assert (z != best).any(dim=0).sum() <= size
                assert size > 1 or (z != best).any()
        margin = difference_of_logits(answer.unsqueeze(0), torch.tensor([0])).item()
        loss = margin if attack.loss == "margin" else answer.log_softmax(dim=0)[0].item()
        if query == 0 or loss < best_loss or margin < 0:
            best, best_loss = z, loss
    return best


@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("options", [{}, {"loss": "ce", "alpha": 0.3}, {"alpha": 1.0}])
def test_candidates_obey_the_rules_whatever_the_budgets_of_the_others(spy_on, unit, options):
    shape = (3, 16) if unit == "pixels" else (1, 48)
    net = Firm(48)
    inputs = 0.1 + 0.8 * torch.rand(6, *shape, generator=seeded(), dtype=torch.float64)
    budgets = torch.tensor([1, 2, 7, 11, shape[1] - 1, shape[1]])
    attack = SparseRS(num_steps=60, unit=unit, **options)
    spy = spy_on(net)
    labels = torch.zeros(6, dtype=torch.int64)
    found = sparse_rs.sparse_rs(net, inputs, labels, budgets, attack, seeded(5))
    seen, logits = torch.stack(spy.inputs), torch.stack(spy.logits)
    assert len(seen) == 60
    for i, k in enumerate(budgets.tolist()):
        best = check_candidates(seen[:, i], logits[:, i], inputs[i], k, attack)
        assert torch.equal(found.last_inputs[i], best)
        assert not torch.equal(best, seen[0, i])  # something was accepted on the way
    assert found.best_l0.tolist() == [torch.inf] * 6
    assert found.num_forwards.tolist() == [60] * 6
    assert found.num_backwards.tolist() == [0] * 6


@pytest.mark.parametrize("budget", [3, 48])
def test_a_single_change_is_one_where_the_input_is_black_or_white(spy_on, budget):
    """Of fair values half would change nothing; with k = d, so would half of the recolourings."""
    net = Firm(48)
    inputs = torch.bernoulli(torch.full((4, 48), 0.5).double(), generator=seeded())
    spy = spy_on(net)
    attack = SparseRS(num_steps=80, budget=budget, alpha=0.01, recheck=False)
    attack(net, inputs, torch.zeros(4, dtype=torch.int64))
    seen, logits = torch.stack(spy.inputs[1:]), torch.stack(spy.logits[1:])
    for i in range(4):
        best, best_loss = seen[0, i], difference_of_logits(logits[0, i : i + 1], torch.tensor([0]))
        for z, answer in zip(seen[1:, i], logits[1:, i], strict=True):
            assert ((z != best).sum() == 1) if budget == 48 else (z != best).any()
            loss = difference_of_logits(answer.unsqueeze(0), torch.tensor([0]))
            if loss < best_loss:
                best, best_loss = z, loss


def test_a_broken_sample_is_done_with_what_broke_it(make_batch, spy_on):
    batch = make_batch(num_wrong=2, num_samples=16)
    spy = spy_on(batch.net)
    attack = SparseRS(num_steps=25, budget=4)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows[:2] == [16, 14]
    assert spy.forward_rows[1:-1] == sorted(spy.forward_rows[1:-1], reverse=True)
    assert sum(spy.forward_rows) == result.num_forwards.sum()
    assert spy.backward_rows == []
    assert result.num_forwards[:2].tolist() == [2, 2]
    assert (result.num_forwards[~result.success] == 1 + 25 + 1).all()
    assert 0 < result.success[2:].sum() < 14
    assert torch.equal(result.last_inputs[result.success], result.adv_inputs[result.success])
    assert (result.l0[2:][result.success[2:]] <= 4).all()


class Scripted(nn.Module):
    """Gives its answers one after the other, whatever it is asked."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)

    def forward(self, inputs):
        return torch.tensor([self.answers.pop(0)])


def test_what_fools_the_net_counts_though_the_loss_was_lower_before(spy_on):
    """Cross-entropy is higher at the second answer, where no other class wins."""
    net = Scripted([1.0, 0, 0], [1.0, 0.9, 0.9], [1.0, 1.1, -5.0])
    spy = spy_on(net)
    attack = SparseRS(num_steps=9, budget=2, loss="ce", recheck=False)
    result = attack(net, torch.full((1, 8), 0.5), torch.tensor([0]))
    assert result.success.item()
    assert torch.equal(result.adv_inputs, spy.inputs[2])


def test_who_leaves_later_reports_the_same(make_batch, spy_on, monkeypatch):
    """An accelerator is asked only now and then who is done: what is found then stays found."""
    batch = make_batch(num_wrong=0, num_samples=16)
    monkeypatch.setattr(sparse_rs, "steps_between_syncs", lambda device: 8)
    spy = spy_on(batch.net)
    attack = SparseRS(num_steps=23, budget=4, recheck=False)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows[1:9] == [16] * 8
    known = torch.zeros(16, dtype=torch.bool)
    for query in range(1, 9):
        fooled = spy.logits[query].argmax(dim=1) != batch.labels
        for i in (fooled & ~known).nonzero().flatten():
            assert torch.equal(result.adv_inputs[i], spy.inputs[query][i])
            assert result.num_forwards[i] == query + 1
        known |= fooled
    assert 1 < known.sum() < 16
    assert result.success[known].all()
    assert sum(spy.forward_rows) > result.num_forwards.sum()


def test_a_graph_is_never_built(make_batch):
    batch = make_batch(num_wrong=0)
    outputs = []
    batch.net.register_forward_hook(lambda module, args, logits: outputs.append(logits))
    SparseRS(num_steps=5, budget=3, recheck=False)(batch.net, batch.inputs, batch.labels)
    assert not any(logits.requires_grad for logits in outputs)


# ---- chance -------------------------------------------------------------------------------------


def near(count, total, share):
    """Within five standard deviations of a binomial."""
    return abs(count - total * share) < 5 * (total * share * (1 - share)) ** 0.5


def test_moves_are_drawn_uniformly():
    num_samples, num_positions, size = 4000, 10, 2
    members = torch.zeros(num_samples, 1, num_positions)
    members[:, :, :4] = 1
    move = Move.draw(
        torch.full((num_samples, 2, num_positions), 0.5),
        members,
        torch.full((num_samples,), size),
        size,
        seeded(),
    )
    left, joined = (
        torch.zeros(num_samples, num_positions).scatter_(1, index, 1).sum(dim=0).tolist()
        for index in (move.leaving, move.joining)
    )
    assert all(near(count, num_samples, size / 4) for count in left[:4])
    assert all(near(count, num_samples, size / 6) for count in joined[4:])
    assert left[4:] == [0] * 6
    assert joined[:4] == [0] * 4
    colours = move.colours.transpose(1, 2).reshape(-1, 2)
    for corner in ([0, 0], [0, 1], [1, 0], [1, 1]):
        count = (colours == torch.tensor(corner)).all(dim=1).sum().item()
        assert near(count, len(colours), 1 / 4)
    assert move.counts.all()


def test_the_start_is_drawn_uniformly(spy_on):
    net, inputs = Firm(12), torch.full((4000, 12), 0.5, dtype=torch.float64)
    spy = spy_on(net)
    attack = SparseRS(num_steps=1, budget=3, batch_size=4000, recheck=False)
    attack(net, inputs, torch.zeros(4000, dtype=torch.int64))
    (start,) = spy.inputs[1:]
    for j in range(12):
        for value in (0, 1):
            assert near((start[:, j] == value).sum().item(), 4000, 3 / 12 / 2)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_another_corner_is_any_of_the_others_with_equal_chance(channels):
    present = torch.bernoulli(torch.full((1, channels, 8000), 0.5), generator=seeded())
    others = other_corners(present, seeded(1))
    assert ((others == 0) | (others == 1)).all()
    flips = (others != present).long()[0]
    numbers = (flips * 2 ** torch.arange(channels).unsqueeze(1)).sum(dim=0)
    counts = numbers.bincount(minlength=2**channels).tolist()
    assert counts[0] == 0
    for count in counts[1:]:
        share = 1 / (2**channels - 1)
        assert count == 8000 if channels == 1 else near(count, 8000, share)


# ---- hyper-parameters ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "expected `alpha` to be above 0 and at most 1, got 0"),
        ({"alpha": 1.5}, "expected `alpha` to be above 0 and at most 1, got 1.5"),
        ({"alpha": float("nan")}, "expected `alpha` to be above 0 and at most 1, got nan"),
        ({"loss": "dlr"}, "expected `loss` to be one of margin, ce, got dlr"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        SparseRS(**options)


def test_pixels_of_more_channels_than_colours_can_be_counted_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(63 * 4, 2))
    inputs = torch.rand(2, 63, 2, 2)
    labels = net(inputs).argmax(dim=1)
    SparseRS(num_steps=3, budget=2)(net, inputs, labels)
    with pytest.raises(InputError, match=r"^expected at most 62 channels with unit=pixels, got 63"):
        SparseRS(num_steps=3, budget=2, unit="pixels")(net, inputs, labels)
