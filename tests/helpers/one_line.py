"""What a command line says of a person's mistake."""

import re

BAR = re.compile("[━╸]|it/s|Epoch")


def assert_one_line(outcome, fragments):
    assert "Traceback" not in outcome.out + outcome.err
    assert not BAR.search(outcome.out + outcome.err)
    assert outcome.lines == [outcome.err.strip()], outcome
    assert outcome.err.startswith("sztrain: error: ")
    for fragment in fragments:
        assert fragment in outcome.err, outcome.err
