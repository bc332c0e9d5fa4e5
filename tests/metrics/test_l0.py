"""The metrics against sorted lists of per-sample values, at once, batch by batch, and merged."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torchmetrics import Metric, MetricCollection

from sztrain.errors import InputError
from sztrain.metrics import (
    AttackSuccessRate,
    L0Histogram,
    MeanL0,
    MedianL0,
    RobustAccuracy,
    RobustnessCurve,
    functional,
    l0_metrics,
)

INF = math.inf
D = 12
SAMPLES = st.lists(st.one_of(st.integers(0, D).map(float), st.just(INF)), min_size=1, max_size=25)


def median_by_hand(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def mean_by_hand(values):
    finite = [value for value in values if value < INF]
    return sum(finite) / len(finite) if finite else INF


def asr_by_hand(values, budget):
    limit = D if budget is None else budget
    return sum(value <= limit and value < INF for value in values) / len(values)


def references(values):
    """Each metric with the value it should have, from the definitions over single samples."""
    yield MedianL0(D), median_by_hand(values)
    yield MeanL0(D), mean_by_hand(values)
    for budget in (0, 3, D, 5 * D, None):
        yield AttackSuccessRate(D, budget), asr_by_hand(values, budget)
        yield RobustAccuracy(D, budget), 1 - asr_by_hand(values, budget)
    yield RobustnessCurve(D), [1 - asr_by_hand(values, k) for k in range(D + 1)]
    yield (
        L0Histogram(D),
        [values.count(float(k)) for k in range(D + 1)] + [values.count(INF)],
    )


def assert_value(metric, expected):
    assert metric.compute().tolist() == pytest.approx(expected, abs=1e-6)


@given(SAMPLES)
@settings(deadline=None, max_examples=60)
def test_one_batch_equals_the_definition(values):
    for metric, expected in references(values):
        metric.update(torch.tensor(values))
        assert_value(metric, expected)


@given(SAMPLES, st.integers(0, 25), st.integers(0, 25))
@settings(deadline=None, max_examples=40)
def test_any_split_into_batches_gives_the_same(values, first, second):
    low, high = sorted((min(first, len(values)), min(second, len(values))))
    for metric, expected in references(values):
        for part in (values[:low], values[low:high], values[high:]):
            metric.update(torch.tensor(part))
        assert_value(metric, expected)


@given(SAMPLES, SAMPLES)
@settings(deadline=None, max_examples=40)
def test_merged_states_equal_all_samples_together(left, right):
    for metric, expected in references(left + right):
        other = metric.clone()
        metric.update(torch.tensor(left))
        other.update(torch.tensor(right))
        metric.merge_state(other)
        assert_value(metric, expected)


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([0.0], 0.0),
        ([INF], INF),
        ([3.0, 4.0], 3.5),  # torch.median gives 3
        ([3.0, INF], INF),  # torch.quantile gives nan
        ([3.0, 3.0, INF, INF], INF),
        ([3.0, 3.0, 3.0, INF], 3.0),
        ([0.0, 0.0, 12.0, 12.0], 6.0),
    ],
)
def test_median_where_it_is_easily_wrong(values, median):
    metric = MedianL0(num_units=D)
    metric.update(torch.tensor(values))
    assert metric.compute().item() == median


def test_samples_misclassified_from_the_start_count_as_fooled():
    histogram = functional.l0_histogram(torch.tensor([0.0, 0.0, 5.0, INF]), D)
    assert functional.attack_success_rate(histogram, 0) == 0.5
    assert functional.robust_accuracy(histogram, 0) == 0.5  # the clean accuracy


def test_large_counts_are_exact():
    # 70,000 images of 224x224x3: the sum of their l0 is far beyond 32 bits.
    largest = 3 * 224 * 224
    metric = MeanL0(largest)
    metric.update(torch.full((70_000,), float(largest)))
    assert metric.compute().item() == largest


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.uint8]
)
@pytest.mark.parametrize("num_units", [4, 784, 3 * 224 * 224])  # more than 8 bits, and than 16
def test_other_number_types_are_counted(dtype, num_units):
    l0 = torch.tensor([0, 3, 3, 4, 100], dtype=dtype)[: 5 if num_units > 100 else 4]
    histogram = functional.l0_histogram(l0, num_units)
    assert histogram.dtype == torch.int64
    assert len(histogram) == num_units + 2
    found = {k: int(histogram[k]) for k in histogram.nonzero().flatten().tolist()}
    assert found == {0: 1, 3: 2, 4: 1} | ({100: 1} if num_units > 100 else {})


def test_whole_numbers_that_cannot_be_an_l0_are_refused_whatever_their_type():
    for dtype in (torch.int8, torch.int64):
        with pytest.raises(InputError, match=r"in 0\.\.784, or inf, got -1 at sample 1"):
            functional.l0_histogram(torch.tensor([3, -1], dtype=dtype), 784)
    with pytest.raises(InputError, match="got 13 at sample 0"):
        functional.l0_histogram(torch.tensor([13], dtype=torch.uint8), 12)
    broken = functional.l0_histogram(torch.tensor([True, False]), 12)  # 1 and 0
    assert broken[:3].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0, -1.0], "got -1.0 at sample 1"),
        ([0.5], "got 0.5 at sample 0"),
        ([0.0, 0.0, D + 1.0], f"got {D + 1.0} at sample 2"),
        ([math.nan], "got nan at sample 0"),
        ([-INF], "got -inf at sample 0"),
    ],
)
def test_what_cannot_be_an_l0_is_refused(values, found):
    metric = MedianL0(D)
    with pytest.raises(InputError, match=found):
        metric.update(torch.tensor(values))
    assert metric.histogram.sum() == 0


def test_other_misuse_is_refused():
    with pytest.raises(InputError, match=r"shape \(N,\), got \(2, 1\)"):
        MedianL0(D).update(torch.zeros(2, 1))
    with pytest.raises(InputError, match="num_units"):
        MedianL0(0)
    with pytest.raises(InputError, match="budget"):
        RobustAccuracy(D, -1)
    with pytest.raises(InputError, match="budget"):
        AttackSuccessRate(D, -1)
    for measure in (AttackSuccessRate, RobustAccuracy):
        with pytest.raises(InputError, match=r"expected `budget` to be a whole number, got 2\.5"):
            measure(D, 2.5)
    with pytest.raises(InputError, match="expected `num_units` to be a whole number"):
        MedianL0(D + 0.5)
    with pytest.raises(InputError, match="unit"):
        RobustnessCurve(D, unit="voxels")
    with pytest.raises(InputError, match="unit"):
        l0_metrics(D, unit="voxels")


def test_functional_budgets_are_checked():
    histogram = functional.l0_histogram(torch.zeros(1), D)
    for rate in (functional.attack_success_rate, functional.robust_accuracy):
        for budget in (-1, 2.5):
            with pytest.raises(InputError, match="budget"):
                rate(histogram, budget)


@pytest.mark.parametrize("measure", [AttackSuccessRate, RobustAccuracy])
def test_without_a_budget_any_is_meant(measure):
    metrics = measure(D), measure(D, None)
    for metric in metrics:
        metric.update(torch.tensor([0.0, D, INF]))
    expected = 2 / 3 if measure is AttackSuccessRate else 1 / 3
    assert [metric.compute().item() for metric in metrics] == pytest.approx([expected] * 2)


@pytest.mark.parametrize("metric", [metric for metric, _ in references([0.0])][:-1])
def test_no_samples_is_an_error_not_a_nan(metric):
    metric.update(torch.zeros(0))
    with pytest.raises(InputError, match="at least 1 sample"):
        metric.compute()


@pytest.mark.parametrize("metric", [metric for metric, _ in references([0.0])])
def test_copies_reset_and_state(metric: Metric):
    metric.update(torch.tensor([0.0, 2.0, INF]))
    value = metric.compute()
    for twin in (pickle.loads(pickle.dumps(metric)), metric.clone(), copy.deepcopy(metric)):
        assert torch.equal(twin.compute(), value)
        twin.update(torch.tensor([5.0]))
        assert not torch.equal(twin.histogram, metric.histogram)
    assert metric.state_dict() == {}
    metric.half()  # a net in half precision must not make counts overflow
    assert metric.histogram.dtype == torch.int64
    metric.reset()
    assert metric.histogram.sum() == 0


def test_forward_gives_the_batch_and_keeps_the_whole():
    metric = MedianL0(D)
    assert metric(torch.tensor([1.0])).item() == 1
    assert metric(torch.tensor([5.0, 5.0])).item() == 5
    assert metric.compute().item() == 5


def test_inference_mode_and_outside_can_alternate():
    metrics = l0_metrics(D, budgets=[3])
    for _ in range(2):
        with torch.inference_mode():
            metrics.update(torch.tensor([1.0]))
        metrics.update(torch.tensor([3.0]))
    assert metrics.compute()["median_l0"].item() == 2


@pytest.mark.parametrize(
    ("unit", "keys"),
    [
        ("features", ["median_l0", "mean_l0", "asr_inf", "asr@3", "asr@8"]),
        ("pixels", ["median_l0_px", "mean_l0_px", "asr_inf", "asr_px@3", "asr_px@8"]),
    ],
)
def test_collection_has_the_keys_of_its_unit(unit, keys):
    keys = {*keys, *(key.replace("asr", "robust_acc") for key in keys if "@" in key)}
    metrics = l0_metrics(D, budgets=[3, 8], unit=unit).clone(prefix="val/")
    metrics.update(torch.tensor([1.0]))
    assert set(metrics.compute()) == {f"val/{key}" for key in keys}


def test_collection_counts_once_and_agrees_with_single_metrics(monkeypatch):
    calls = 0
    count = functional.l0_histogram

    def counted(l0, num_units):
        nonlocal calls
        calls += 1
        return count(l0, num_units)

    monkeypatch.setattr(functional, "l0_histogram", counted)
    metrics: MetricCollection = l0_metrics(D, budgets=[3, 8])
    metrics.add_metrics({"curve": RobustnessCurve(D)})
    batches = [[0.0, 3.0, INF], [4.0], [9.0, 3.0, 2.0, INF]]
    metrics.update(torch.tensor(batches[0]))
    assert len(metrics.compute_groups) == 1
    calls = 0
    for batch in batches[1:]:
        metrics.update(torch.tensor(batch))
    assert calls == 2  # once a batch, for eight metrics
    values = [value for batch in batches for value in batch]
    found = metrics.compute()
    assert found["median_l0"].item() == median_by_hand(values)
    assert found["mean_l0"].item() == pytest.approx(mean_by_hand(values))
    assert found["asr_inf"].item() == pytest.approx(asr_by_hand(values, None))
    for budget in (3, 8):
        asr = asr_by_hand(values, budget)
        assert found[f"asr@{budget}"].item() == pytest.approx(asr)
        assert found[f"robust_acc@{budget}"].item() == pytest.approx(1 - asr)
        assert found["curve"][budget].item() == pytest.approx(1 - asr)


def test_metrics_added_later_are_not_counted_twice():
    metrics = l0_metrics(D, budgets=[3])
    metrics.update(torch.tensor([1.0, 2.0]))
    metrics.update(torch.tensor([3.0]))
    metrics.add_metrics({"curve": RobustnessCurve(D)})
    metrics.update(torch.tensor([INF]))
    assert metrics["median_l0"].histogram.sum() == 4
    assert metrics["curve"].histogram.sum() == 1


def test_collection_can_be_reset_and_filled_again():
    metrics = l0_metrics(D, budgets=[3])
    for values in ([1.0, 2.0, 9.0], [4.0, INF]):
        metrics.update(torch.tensor(values))
        metrics.update(torch.tensor(values))
        assert metrics.compute()["median_l0"].item() == median_by_hand(values)
        metrics.reset()


def test_plot_draws_a_step_curve_with_its_unit():
    metric = RobustnessCurve(D, unit="pixels")
    metric.update(torch.tensor([0.0, 2.0, 2.0, 4.0]))
    given = Figure().subplots()
    assert metric.plot(ax=given) == (given.figure, given)
    drawn = [metric.plot(), metric.plot(metric.compute())]
    drawn += MetricCollection({"curve": metric}).plot()
    assert len(drawn) == 3
    for ax in (given, *(ax for _, ax in drawn)):
        assert ax.get_xlabel() == "budget (changed pixels)"
        assert ax.get_ylabel() == "robust accuracy (%)"
        (line,) = ax.lines
        assert line.get_drawstyle() == "steps-post"
        assert list(line.get_xdata()) == list(range(D + 1))
        assert list(line.get_ydata()) == [75, 75, 25, 25] + [0] * (D - 3)
        assert 4 < ax.get_xlim()[1] < D
