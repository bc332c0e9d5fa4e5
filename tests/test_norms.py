"""Norms and projections against loops over single units and against brute force."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sztrain.errors import InputError
from sztrain.norms import (
    check_budgets,
    clamp_to_box_,
    l0_norm,
    magnitudes,
    num_changed_windows,
    num_units,
    per_sample,
    project_l0,
)

# Few values, so that zeros and ties are common.
VALUES = st.sampled_from([0.0, -0.0, 0.25, -0.25, 0.5, -0.5, 1.0, -1.0])
IMAGES = arrays(
    "float64", array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=3), elements=VALUES
).map(torch.from_numpy)
UNITS = st.sampled_from(["features", "pixels"])


def units_of(sample, unit):
    """The units of one sample ``(C, H, W)``, each a list of its values."""
    features = [[value] for value in sample.flatten().tolist()]
    pixels = [list(pixel) for pixel in zip(*sample.flatten(1).tolist(), strict=True)]
    return features if unit == "features" else pixels


@given(IMAGES, UNITS)
@settings(deadline=None)
def test_l0_counts_the_units_that_have_a_change(delta, unit):
    counts = [sum(any(values) for values in units_of(sample, unit)) for sample in delta]
    l0 = l0_norm(delta, unit)
    assert l0.tolist() == counts
    assert l0.dtype == torch.float32


@given(IMAGES, UNITS)
@settings(deadline=None)
def test_magnitude_is_the_largest_change_of_a_unit(delta, unit):
    sizes = [[max(map(abs, values)) for values in units_of(sample, unit)] for sample in delta]
    found = magnitudes(delta, unit)
    assert found.flatten(1).tolist() == sizes
    assert found.shape == (
        len(delta),
        delta.shape[1] if unit == "features" else 1,
        *delta.shape[2:],
    )


def test_l0_sees_the_smallest_change_and_is_zero_for_none():
    delta = torch.zeros(2, 1, 2, 2)
    delta[1, 0, 1, 1] = 1e-45  # the smallest subnormal
    for unit in ("features", "pixels"):
        assert l0_norm(delta, unit).tolist() == [0.0, 1.0]


def test_l0_counts_features_by_default_at_any_rank():
    for shape in ((2, 6), (2, 2, 3), (2, 1, 2, 3), (2, 1, 1, 2, 3)):
        delta = torch.zeros(shape)
        delta.view(2, 6)[1, :4] = -0.1
        assert l0_norm(delta).tolist() == [0.0, 4.0]


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64])
def test_a_large_count_is_exact_whatever_the_default_dtype(default):
    torch.set_default_dtype(default)
    try:
        counts = l0_norm(torch.ones(1, 3, 151, 151)), l0_norm(torch.ones(1, 257).bfloat16())
    finally:
        torch.set_default_dtype(torch.float32)
    assert [count.item() for count in counts] == [68403.0, 257.0]


@pytest.mark.parametrize(
    ("shape", "features", "pixels"), [((3, 32, 32), 3072, 1024), ((1, 4, 7), 28, 28)]
)
def test_number_of_units_of_an_image(shape, features, pixels):
    for given_shape in (shape, torch.Size(shape)):
        assert num_units(given_shape, "features") == features
        assert num_units(given_shape, "pixels") == pixels


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 2, 2, 2)])
def test_pixels_of_something_else_are_refused_and_features_are_not(shape):
    assert num_units(shape, "features") == torch.ones(shape).numel()
    with pytest.raises(InputError, match=r"^unit=pixels needs images .*use unit=features$"):
        num_units(shape, "pixels")


def distance(delta, projected):
    return (delta - projected).square().sum().item()


def nearest_by_brute_force(sample, budget, unit):
    """Smallest squared distance over every choice of ``budget`` units that stay."""
    units = units_of(sample, unit)
    squares = [sum(value**2 for value in values) for values in units]
    stay = combinations(range(len(units)), min(budget, len(units)))
    return min(sum(squares) - sum(squares[index] for index in chosen) for chosen in stay)


@given(IMAGES, UNITS, st.integers(0, 4))
@settings(deadline=None, max_examples=150)
def test_projection_is_the_nearest_point_of_the_ball(delta, unit, budget):
    delta = delta[:2, :, :2, :2]
    projected = project_l0(delta, budget, unit)
    assert (l0_norm(projected, unit) <= budget).all()
    for sample, answer in zip(delta, projected, strict=True):
        best = nearest_by_brute_force(sample, budget, unit)
        assert distance(sample, answer) == pytest.approx(best, abs=1e-12)


@given(IMAGES, UNITS, st.integers(0, 30))
@settings(deadline=None)
def test_projection_keeps_units_whole_is_idempotent_and_new(delta, unit, budget):
    kept = delta.clone()
    projected = project_l0(delta, budget, unit)
    assert torch.equal(delta, kept)
    assert projected.data_ptr() != delta.data_ptr()
    assert projected.shape == delta.shape
    assert projected.dtype == delta.dtype
    assert torch.equal(project_l0(projected, budget, unit), projected)
    for sample, answer in zip(delta, projected, strict=True):
        for before, after in zip(units_of(sample, unit), units_of(answer, unit), strict=True):
            assert after in (before, [0.0] * len(before))
    full = l0_norm(delta, unit) <= budget
    assert torch.equal(projected[full], delta[full])


def test_projection_where_all_magnitudes_tie_keeps_the_earliest():
    delta = torch.tensor([[0.5, -0.5, 0.5, -0.5, 0.5]])
    for budget in range(7):
        expected = delta.where(torch.arange(5) < budget, 0.0)
        assert torch.equal(project_l0(delta, budget), expected)
    large = project_l0(torch.ones(2, 3, 20, 20), 7, "pixels")  # too large for a sort to be stable
    expected = torch.ones(400).where(torch.arange(400) < 7, 0.0).expand(2, 3, 400)
    assert torch.equal(large.flatten(2), expected)


def test_projection_onto_nothing_and_onto_everything():
    delta = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for unit, size in (("features", 12), ("pixels", 4)):
        assert not project_l0(delta, 0, unit).any()
        for budget in (size, size + 1, 10**6):
            assert torch.equal(project_l0(delta, budget, unit), delta)
        assert l0_norm(project_l0(delta, size - 1, unit), unit).tolist() == [size - 1.0] * 2


def test_projection_of_pixels_weighs_all_channels():
    delta = torch.zeros(1, 3, 1, 2)
    delta[0, :, 0, 0] = 0.5  # of length 0.87
    delta[0, 0, 0, 1] = -0.6
    assert project_l0(delta, 1, "pixels")[0, :, 0].tolist() == [[0.5, 0.0]] * 3
    assert project_l0(delta, 1, "features").flatten().tolist() == [
        0,
        pytest.approx(-0.6),
        0,
        0,
        0,
        0,
    ]


def test_projection_does_not_depend_on_the_memory_format():
    delta = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for unit in ("features", "pixels"):
        last = project_l0(delta.to(memory_format=torch.channels_last), 5, unit)
        assert torch.equal(last, project_l0(delta, 5, unit))


def test_projection_refuses_what_is_no_budget():
    with pytest.raises(InputError, match=r"^expected `budget` to be at least 0, got -1$"):
        project_l0(torch.ones(1, 4), -1)
    with pytest.raises(InputError, match=r"^expected `budget` to be a whole number, got 2\.5$"):
        project_l0(torch.ones(1, 4), 2.5)


@pytest.mark.parametrize("unit", ["feature", "pixel", "Pixels", None])
@pytest.mark.parametrize(
    "count",
    [
        lambda delta, unit: l0_norm(delta, unit),
        lambda delta, unit: magnitudes(delta, unit),
        lambda delta, unit: project_l0(delta, 1, unit),
        lambda delta, unit: num_units(delta.shape[1:], unit),
    ],
)
def test_an_unknown_unit_is_refused_and_not_taken_for_one_of_the_two(count, unit):
    with pytest.raises(InputError, match=f"^expected `unit` to be one of .*, got {unit}$"):
        count(torch.ones(1, 3, 2, 2), unit)


FLOATS = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(FLOATS, st.floats(-3, 3, width=32)), min_size=1, max_size=8))
@settings(deadline=None)
def test_clamp_leaves_what_fits_and_never_leaves_the_box(pairs):
    inputs, delta = torch.tensor(pairs).unbind(dim=1)
    left = clamp_to_box_(delta.clone(), inputs)
    moved = inputs + left
    assert ((moved >= 0) & (moved <= 1)).all()
    room = torch.where(delta > 0, 1 - inputs, inputs)
    assert torch.allclose(left, delta.sign() * torch.minimum(delta.abs(), room), atol=1e-7)


@pytest.mark.parametrize(("unit", "size"), [("features", 48), ("pixels", 16)])
def test_budgets_are_those_that_a_sample_has_room_for(unit, size):
    check_budgets("budgets", [None, 1, size], (3, 4, 4), unit)
    too_large = f"`budgets` to be at most {size}, the {unit} of a sample, got {size + 1}$"
    for wrong, message in {
        size + 1: too_large,
        0: "at least 1, got 0",
        1.5: "whole number",
    }.items():
        with pytest.raises(InputError, match=message):
            check_budgets("budgets", [None, wrong], (3, 4, 4), unit)


def test_per_sample_values_stand_before_the_other_dimensions():
    for shape in ((3, 2), (3, 2, 2), (3, 1, 2, 2), (3, 1, 1, 2, 2)):
        like = torch.ones(shape)
        scaled = per_sample(torch.tensor([1.0, 2.0, 3.0]), like) * like
        assert scaled.shape == shape
        assert scaled.flatten(1).amin(dim=1).tolist() == [1.0, 2.0, 3.0]
        assert scaled.flatten(1).amax(dim=1).tolist() == [1.0, 2.0, 3.0]


# ---- groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "shape"), [(8, (1, 28, 28)), (3, (3, 9, 12)), (5, (2, 5, 5))])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.3])
def test_changed_windows_are_those_whose_norm_is_not_zero(size, shape, density):
    generator = torch.Generator().manual_seed(size)
    delta = torch.randn(6, *shape, generator=generator)
    delta *= torch.rand(6, *shape, generator=generator) < density
    windows = torch.nn.functional.unfold(delta, size)  # (N, C * size * size, number of windows)
    expected = (torch.linalg.vector_norm(windows, dim=1) != 0).sum(dim=1).float()
    assert torch.equal(num_changed_windows(delta, size), expected)
    assert expected.any() == (density > 0)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (6, "`size` to be at most 5, images being 5 x 9 pixels, got 6"),
        (0, "`size` to be at least 1, got 0"),
        (1.5, "`size` to be a whole number, got 1.5"),
    ],
)
def test_windows_that_fit_into_no_image_are_refused(size, message):
    assert num_changed_windows(torch.ones(1, 1, 5, 9), 5).tolist() == [5.0]
    with pytest.raises(InputError, match=f"^expected {message}$"):
        num_changed_windows(torch.ones(1, 1, 5, 9), size)


def test_a_corner_lies_in_one_window_and_an_inner_pixel_in_all_of_a_patch():
    for shape, most in (((3, 32, 32), 625), ((1, 28, 28), 441)):
        delta = torch.zeros(3, *shape)
        delta[0, 0, 0, -1] = 1e-30
        delta[1, 0, 14, 14] = -1
        delta[2] = 1
        assert num_changed_windows(delta).tolist() == [1, 64, most]
