"""Whole programs of the documentation do what stands beside them."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["attacks.md"])
def test_programs_run(page, capsys):
    programs = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    assert programs
    for program in programs:
        exec(compile(program, page, "exec"), {})
    assert "ACP" in capsys.readouterr().out
