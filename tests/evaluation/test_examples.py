"""Which of the attacked samples are shown."""

import torch

from sztrain.evaluation.examples import Examples, side_by_side

INF = torch.inf


def examples(l0, places=None):
    """Of images that tell their place; those at l0 = 0 are wrong from the start."""
    l0, places = torch.tensor(l0), torch.tensor(places or range(len(l0)))
    images = (places / 10.0).view(-1, 1, 1, 1)
    labels = torch.zeros(len(l0), dtype=torch.int64)
    return Examples(
        inputs=images,
        adv_inputs=1 - images,
        labels=labels,
        clean_predictions=(l0 == 0).long(),
        adv_predictions=l0.isfinite().long(),
        l0=l0,
    )


def places_of(some):
    return some.inputs.flatten().mul(10).round().int().tolist()


def test_one_change_breaks_a_sample_and_none_does_not():
    assert examples([0.0, 1.0, 2.0, INF]).broken.tolist() == [False, True, True, False]


def test_broken_ones_come_first_then_those_that_withstood_then_the_wrong():
    shown = examples([0.0, INF, 3.0, 0.0, INF, 1.0])
    assert places_of(shown.broken_first(6)) == [2, 5, 1, 4, 0, 3]
    assert places_of(shown.broken_first(3)) == [2, 5, 1]
    assert shown.broken_first(2).l0.tolist() == [3.0, 1.0]


def test_what_most_attacks_broke_comes_first_under_all_of_them():
    shared = side_by_side(
        {
            "a": examples([INF, INF, 4.0, 1.0]),
            "b": examples([5.0, 2.0, INF, 3.0], places=[3, 1, 0, 2]),
            "c": examples([INF, INF, INF, 7.0, 9.0]),
        },
        3,
    )
    assert [places_of(one) for one in shared.values()] == [[3, 2, 1]] * 3
    assert shared["a"].l0.tolist() == [1.0, 4.0, INF]
    assert shared["b"].l0.tolist() == [5.0, 3.0, 2.0]
    assert shared["c"].l0.tolist() == [7.0, INF, INF]


def test_parts_are_joined_in_their_order_and_none_is_nothing():
    joined = Examples.joined([examples([1.0]), examples([2.0, 3.0], places=[7, 4])])
    assert joined.l0.tolist() == [1.0, 2.0, 3.0]
    assert places_of(joined) == [0, 7, 4]
    assert Examples.joined([]) is None
