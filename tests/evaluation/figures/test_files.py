"""Figures are written whole or not at all."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from sztrain.errors import InputError
from sztrain.evaluation.figures import robustness_curve_figure, save_figure


def test_figure_is_written_whole_and_leaves_nothing_else(tmp_path):
    figure = robustness_curve_figure({"σ-zero": np.array([0.9, 0.6, 0.3])}, "features", [2])
    path = save_figure(figure, tmp_path / "curves" / "net.png", dpi=100)
    assert imread(path).shape[:2] == (430, 700)
    assert [file.name for file in path.parent.iterdir()] == ["net.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.png"
    path.write_bytes(b"old")

    def fail(self, target, **kwargs):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(InputError, match="disk full"):
        save_figure(Figure(), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["net.png"]


def test_an_unknown_format_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match=r"got curve\.doc"):
        save_figure(Figure(), tmp_path / "new" / "curve.doc")
    assert list(tmp_path.iterdir()) == []
