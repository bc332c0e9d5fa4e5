"""How far an attack is: on a terminal a bar, in a log file lines."""

import pytest

from sztrain.progress import SpacedLines, attack_progress


def test_lines_are_spaced(console, clock):
    lines = SpacedLines(console, every=60.0)
    for second in range(100, 300, 20):
        clock[0] = second
        lines.tell(f"after {second - 100} s, in a line that is long")
    told = console.file.getvalue().splitlines()
    waited = [f"after {second} s, in a line that is long" for second in (60, 120, 180)]
    assert told == ([] if console.is_terminal else waited)


def attack(clock, **options):
    with attack_progress("M1", 128, done=32, share=" of mine", **options) as advance:
        advance(0, "median ℓ0 2")
        for found in (3, 4, 5):
            clock[0] += 40.0
            advance(32, f"median ℓ0 {found}")


@pytest.mark.parametrize("console", [False], indirect=True)
def test_an_attack_of_minutes_leaves_lines_in_a_file(console, clock):
    attack(clock, shown=True, kept=False)
    assert console.file.getvalue() == "M1, median ℓ0 4: 96 of 128 samples of mine\n"


@pytest.mark.parametrize("console", [False], indirect=True)
def test_the_line_that_is_kept_stands_below_them(console, clock):
    attack(clock, shown=True)
    assert console.file.getvalue().splitlines() == [
        "M1, median ℓ0 4: 96 of 128 samples of mine",
        "M1, median ℓ0 5: 128 of 128 samples of mine in 0:02:00",
    ]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("console", [True], indirect=True)
def test_on_a_terminal_there_is_the_bar_alone(console, clock, kept):
    attack(clock, shown=True, kept=kept)
    assert "128/128" in console.file.getvalue()
    assert "samples" not in console.file.getvalue()


def test_what_is_not_to_be_shown_is_not(console, clock):
    attack(clock, shown=False)
    assert console.file.getvalue() == ""
