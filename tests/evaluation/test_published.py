"""The paper's figures as carried: complete, and cell for cell where the paper was read again."""

from collections import Counter

import pytest

from sztrain.evaluation.published import (
    find_row,
    fixed_budget_rows,
    minimum_norm_rows,
    net_rows,
)

INF = float("inf")


def test_every_row_is_there():
    assert len(minimum_norm_rows()) == 300
    assert len(fixed_budget_rows()) == 240
    assert len(net_rows()) == 18
    # 12 networks under 10 attacks and 6 under 5, at two numbers of steps.
    per_net = Counter(row.model for row in minimum_norm_rows())
    assert {net: 20 if net[0] in "MC" else 10 for net in per_net} == per_net
    assert {row.model for row in net_rows()} == set(per_net)


def test_no_row_stands_twice():
    keys = Counter((row.model, row.attack, row.steps) for row in minimum_norm_rows())
    assert set(keys.values()) == {1}
    budget_keys = Counter(
        (row.model, row.attack, row.steps, row.budget) for row in fixed_budget_rows()
    )
    assert set(budget_keys.values()) == {1}


@pytest.mark.parametrize(
    ("model", "attack", "steps", "table", "figures"),
    [
        ("M1", "sigma-zero", 1000, "I", (19.60, 99.98, 100.0, 16, 0.31, 2.00, 0.04)),
        ("M2", "Sparse-RS", 1000, "I", (59.73, 98.59, 100.0, 9, 3.53, 2.44, 0.06)),
        ("C1", "EAD", 1000, "II", (6.74, 21.33, 100.0, 126, 2.32, 6.90, 1.47)),
        ("C6", "BB", 1000, "II", (13.46, 17.14, 17.94, INF, 3.46, 2.08, 9.93)),
        ("C7", "VFGA", 1000, "II", (34.17, 81.79, 99.89, 20, 4.30, 0.62, None)),
        ("C4", "SparseFool", 100, "VI", (15.48, 38.76, 82.71, 3062, 4.30, 9.67, 1.90)),
    ],
)
def test_cells_are_those_of_the_paper(model, attack, steps, table, figures):
    row = find_row(model, attack, steps)
    assert row is not None
    assert row.table == table
    cells = (row.asr_10, row.asr_50, row.asr_inf, row.median_l0)
    assert (*cells, row.time_s, row.queries_k, row.vram_gb) == figures


def test_fixed_budget_cells_are_those_of_table_viii():
    rows = [row for row in fixed_budget_rows() if row.table == "VIII"]
    found = {(row.model, row.attack, row.budget): row.asr for row in rows}
    assert [found["M1", "sigma-zero", k] for k in (24, 50, 100)] == [83.79, 99.98, 100.0]
    assert [found["M2", "PGD-l0", k] for k in (24, 50, 100)] == [61.87, 94.15, 98.50]
    assert [found["C5", "sigma-zero", k] for k in (24, 50, 100)] == [38.60, 73.02, 98.58]
    costs = {
        (row.time_s, row.queries_k, row.vram_gb)
        for row in rows
        if (row.model, row.attack) == ("M1", "Sparse-RS")
    }
    assert costs == {(0.67, 0.83, 0.06)}


def test_success_never_falls_with_the_budget():
    for row in minimum_norm_rows():
        assert 0 <= row.asr_10 <= row.asr_50 <= row.asr_inf <= 100, row
    by_run: dict[tuple[str, str, int], list[tuple[int, float]]] = {}
    for row in fixed_budget_rows():
        by_run.setdefault((row.model, row.attack, row.steps), []).append((row.budget, row.asr))
    for run, points in by_run.items():
        rates = [asr for _, asr in sorted(points)]
        assert rates == sorted(rates), run


def test_medians_agree_with_success_rates():
    # A median at or below a budget needs half of the samples broken within it, and vice versa.
    for row in minimum_norm_rows():
        if row.median_l0 is None:
            continue
        for budget, asr in ((10, row.asr_10), (50, row.asr_50), (INF, row.asr_inf)):
            broken = row.median_l0 <= budget and row.median_l0 < INF
            assert broken == (asr >= 50), row


def test_what_is_not_a_number_is_kept_apart():
    unread = [row for row in minimum_norm_rows() if row.median_l0 is None]
    assert [(row.model, row.attack, row.steps) for row in unread] == [
        ("I3", "VFGA", 1000),
        ("I6", "VFGA", 1000),
    ]
    bounds = [row for row in minimum_norm_rows() if row.vram_gb is None]
    assert {row.vram_text for row in bounds} == {">40"}
    assert {row.attack for row in bounds} == {"VFGA"}


def test_find_row_knows_only_what_is_printed():
    assert find_row("I1", "PDPGD", 1000) is None
    assert find_row("M1", "sigma-zero", 77) is None
    assert find_row("M9", "sigma-zero", 1000) is None


def test_table_four_with_two_threat_models_gives_two_figures():
    nets = {row.model: row for row in net_rows()}
    assert nets["C4"].clean_acc == (87.03, 90.83)
    assert nets["C4"].robust_acc == (49.25, 69.24)
    assert nets["M1"].clean_acc == ()
    assert nets["C2"].rb_clean_acc == 89.69
