"""The page of an evaluation: it explains what it shows, and nothing else."""

import re

import pytest

from sztrain.evaluation.html import write_report
from sztrain.evaluation.tables import Cell


def page_of(folder, **tables):
    path = folder / "report.html"
    write_report(path, title="M1", facts={}, tables=tables, pictures=[], config="")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("headings", "is_told"),
    [(["net", "RA"], True), (["net", "RA24"], True), (["RA2"], True), (["net", "VRAM"], False)],
)
def test_robust_accuracy_is_explained_where_it_stands(tmp_path, headings, is_told):
    table = (headings, [[Cell("1") for _ in headings]])
    page = page_of(tmp_path, Results=table, Others=(["net", "t"], [[Cell("M1"), Cell("2")]]))
    assert ("<li>RA: percent of all images" in page) is is_told


def test_what_a_cell_or_a_heading_says_is_no_markup(tmp_path):
    odd = "<b>&amp;\"'"
    page = page_of(tmp_path, **{odd: (["net", odd], [[Cell("M1"), Cell(odd, odd, odd)]])})
    assert "<b>" not in page
    assert page.count("&lt;b&gt;&amp;amp;&#34;&#39;") >= 5


def test_a_wide_picture_scrolls_by_itself_and_not_the_page(tmp_path):
    """A column of 1fr is never narrower than what stands in it."""
    columns = re.findall(r"grid-template-columns:(.*?);", page_of(tmp_path))
    assert len(columns) == 3
    assert all(re.search(r"minmax\((0|min\(100%.*), 1fr\)|max-content 1fr", one) for one in columns)
