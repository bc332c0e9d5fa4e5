import math

import numpy as np
import pytest
import torch

from sztrain.errors import (
    InputError,
    require_at_least,
    require_count,
    require_in,
    require_positive,
    require_seed,
)


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("value", [1, 1.0, 7, 1e300])
def test_at_least_passes_its_bound_and_what_is_above(value):
    require_at_least("num_steps", value, 1)


@pytest.mark.parametrize("value", [0, 0.999, -3, -math.inf, math.nan])
def test_at_least_refuses_what_is_below_and_nan(value):
    with pytest.raises(InputError, match=rf"^expected `num_steps` to be at least 1, got {value}$"):
        require_at_least("num_steps", value, 1)


def test_at_least_is_finite():
    with pytest.raises(InputError, match=r"^expected `beta` to be finite, got inf$"):
        require_at_least("beta", math.inf, 0)


def test_seeds_are_those_that_torch_takes():
    for seed in (0, 2**63 - 1):
        require_seed("seed", seed)
        torch.Generator().manual_seed(seed)
    for seed, message in ((-1, "at least 0"), (2**63, "at most"), (1.5, "a whole number")):
        with pytest.raises(InputError, match=f"^expected `seed` to be {message}"):
            require_seed("seed", seed)


def test_count_passes_whole_numbers_from_its_bound_on():
    for value in (1, 2, 10**6, np.int64(3)):
        require_count("num_steps", value, 1)
    with pytest.raises(InputError, match=r"^expected `num_steps` to be at least 1, got 0$"):
        require_count("num_steps", 0, 1)


@pytest.mark.parametrize("value", [1e3, 2.5, "10", math.nan, math.inf, None, True])
def test_count_refuses_what_is_no_whole_number(value):
    with pytest.raises(InputError, match=r"^expected `num_steps` to be a whole number, got \S+$"):
        require_count("num_steps", value, 1)


def test_positive_is_above_zero_and_finite():
    require_positive("eta", 1e-300)
    for value in (0, -1.0, math.nan):
        with pytest.raises(InputError, match=rf"^expected `eta` to be positive, got {value}$"):
            require_positive("eta", value)
    with pytest.raises(InputError, match=r"^expected `eta` to be finite, got inf$"):
        require_positive("eta", math.inf)


def test_in_lists_the_choices():
    require_in("unit", "pixels", ("features", "pixels"))
    with pytest.raises(InputError, match=r"to be one of features, pixels, got px$"):
        require_in("unit", "px", ("features", "pixels"))
