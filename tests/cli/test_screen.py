"""Tables on a screen of any width."""

import re
from collections import Counter
from pathlib import Path

import pytest

from sztrain.cli.screen import print_results, print_verdict
from sztrain.evaluation.tables import Cell

HEADINGS = ["net", "attack", "N", "clean", "median", "mean", "t"]
ROWS = [
    ["a_net_with_a_name_that_is_long", "sparse_pgd_projected", "1000", "99", "258.2", "160.55", ""],
    ["M1", "sigma-zero", "1000", "98.7", "∞", "-1.5e+03", "0.205"],
]


@pytest.fixture
def printed(capsys, monkeypatch):
    def at(width):
        monkeypatch.setenv("COLUMNS", str(width))
        body = [[Cell(text) for text in row] for row in ROWS]
        print_results({"Results": (HEADINGS, body)}, [], Path("report.html"))
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines[:-1])) <= width  # the last names a path, and may be longer
        return lines

    return at


def test_what_a_table_holds_is_explained_and_nothing_else(capsys):
    judged = (["net", "clean", "k", "RA"], [[Cell("M1"), Cell("99"), Cell("24"), Cell("8")]])
    print_results({"Results": judged}, [], Path("report.html"))
    told = capsys.readouterr().out
    assert "clean accuracy and ASR in percent, median" in told  # on one line
    assert "RA: robust accuracy in percent, when at most k values may change" in told
    print_results({"Results": (HEADINGS, [])}, [], Path("report.html"))
    assert "RA:" not in capsys.readouterr().out
    print_results({}, ["M1: not available"], Path("report.html"))
    assert capsys.readouterr().out == "M1: not available\n"


@pytest.fixture
def summary():
    figures = {"clean_accuracy": 0.125, "median_l0": 3.0, "mean_l0": 4.0, "asr_inf": 1.0}
    figures |= {"robust_accuracy": {"2": 0.5}, "train_seconds": 1.0, "attack_seconds": 0.5}
    figures |= {"verdict_seconds": 2.0, "best_epoch": 3, "epochs": 6}
    about = {"unit": "features", "attacks": ["SigmaZero"], "num_steps": 10, "method": "TRADES"}
    return figures | about | {"num_samples": 8, "last": None}


def test_a_verdict_says_that_clean_accuracy_is_of_all_images(summary, capsys):
    print_verdict(summary, Path("out"))
    lines = capsys.readouterr().out.splitlines()
    assert "8 test images" in " ".join(lines)
    (line,) = (line for line in lines if "12.50 %" in line)
    assert "clean accuracy (all images)" in line
    (line,) = (line for line in lines if "best epoch" in line)
    assert re.findall(r"\d+", line) == ["0", "5", "3"]


@pytest.mark.parametrize(("last_accuracy", "told"), [(0.32, False), (0.33, True)])
def test_a_best_checkpoint_that_has_hardly_learnt_is_told_of(summary, capsys, last_accuracy, told):
    last = {"clean_accuracy": last_accuracy, "robust_accuracy": {"2": 0.4}, "num_samples": 4}
    print_verdict(summary | {"last": last}, Path("out"))
    assert ("hardly learnt yet" in capsys.readouterr().out) is told


@pytest.mark.parametrize("width", [60, 80, 200])
def test_figures_and_their_headings_stay_on_one_line(printed, width):
    words = " ".join(printed(width)).split()
    figures = [cell for row in ROWS for cell in row[2:] if cell]
    for text in [*figures, *HEADINGS[2:]]:
        assert text in words


def test_names_and_options_are_broken_at_blanks_alone(capsys, monkeypatch):
    """80 columns, which is what a log file gets."""
    monkeypatch.setenv("COLUMNS", "80")
    words = ["digits_standard", "Sparse-RS", "epsilon=0.3765 mu=0.0005 step=30.0"]
    headings = ["net", "attack", "options", *(f"ASR{k}" for k in range(10))]
    cells = [Cell(text) for text in (*words, *["100"] * 10)]
    print_results({"Results": (headings, [cells])}, [], Path("report.html"))
    told = capsys.readouterr().out.split()
    for word in " ".join(words).split():
        assert word in told
    assert told.count("100") == 10


def test_a_folder_with_brackets_stands_as_it_is(summary, capsys):
    print_verdict(summary, Path("runs[a]"))
    assert "checkpoints: runs[a]" in capsys.readouterr().out


@pytest.mark.parametrize("width", [30, 45, 60])
def test_nothing_is_lost_where_there_is_no_room(printed, width):
    table = printed(width)[1:]
    rule = next(i for i, line in enumerate(table) if "─" in line)
    shown = re.sub(r"\s", "", "".join(table[rule:]))
    # Folded columns stand beside each other: every letter is there, in some order.
    wanted = Counter(letter for row in ROWS for text in row for letter in text if letter != " ")
    assert not wanted - Counter(shown)


@pytest.mark.parametrize(("width", "num_tables"), [(36, 2), (60, 1)])
def test_figures_without_room_stand_below_beside_the_words_again(printed, width, num_tables):
    lines = printed(width)
    words = " ".join(lines).split()
    figures = [cell for row in ROWS for cell in row[2:] if cell]
    assert set(figures + HEADINGS[2:]) <= set(words)
    assert words.count("net") == num_tables


@pytest.mark.parametrize(("steps", "times"), [(["100", "1000"], 2), (["100", "100"], 1)])
def test_steps_that_tell_rows_apart_stand_again_as_well(capsys, monkeypatch, steps, times):
    monkeypatch.setenv("COLUMNS", "40")
    headings = ["net", "N", *(f"ASR{k}" for k in range(8))]
    body = [[Cell("M1"), Cell(n), *[Cell("99")] * 8] for n in steps]
    print_results({"Results": (headings, body)}, [], Path("report.html"))
    told = capsys.readouterr().out.split()
    assert told.count("net") == 2
    assert told.count("N") == times
