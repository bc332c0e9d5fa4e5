"""How many of some cases the default run takes; `-m slow` takes the others."""

import pytest


def slow_after(count, cases):
    """The first ``count`` cases as they are, the others marked slow.

    Each case is one value, or a tuple of them.
    """
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*value, marks=[] if i < count else [pytest.mark.slow])
        for i, value in enumerate(values)
    ]
