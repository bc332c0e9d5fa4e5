"""Which pictures an evaluation draws, and of what."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from findings import finding
from torch import nn

from sztrain.attacks import SigmaZero
from sztrain.cli import pictures
from sztrain.cli.pictures import draw_explanation, draw_pictures, draw_run
from sztrain.evaluation.examples import Examples
from sztrain.evaluation.records import Records

SUITE = SimpleNamespace(grid={})


@pytest.fixture
def drawn(monkeypatch):
    """What stands in each picture, instead of pictures."""
    figures = []

    def figure(content, *arguments, **options):
        figures.append(content)
        return content

    for name in ("robustness_curve_figure", "ablation_figure", "attack_grid_figure"):
        monkeypatch.setattr(pictures, name, figure)
    monkeypatch.setattr(pictures, "save_figure", lambda content, path: path)
    return figures


def test_nets_for_other_data_have_a_picture_of_their_own(drawn, tmp_path):
    findings = [finding("M1", "mnist"), finding("M2", "mnist"), finding("C1", "cifar10")]
    found = draw_pictures(findings, SUITE, [2], tmp_path)
    assert [list(curves) for curves in drawn] == [["M1", "M2"], ["C1"]]
    names = [f"{name}-sigma-zero-N=10-features.png" for name in ("mnist", "cifar10")]
    assert [picture.path.name for picture in found] == names


def test_a_curve_ends_at_the_only_budget_that_was_tried(monkeypatch, tmp_path):
    drawn = []

    def figure(curves, unit, budgets, title):
        drawn.append(({name: len(curve) for name, curve in curves.items()}, budgets))

    monkeypatch.setattr(pictures, "robustness_curve_figure", figure)
    monkeypatch.setattr(pictures, "save_figure", lambda content, path: path)
    size = len(finding().measurement.curve)
    captions = []
    for attack in (SigmaZero(num_steps=10, budget=1), SigmaZero(num_steps=10)):
        (picture,) = draw_pictures([finding(attack=attack)], None, [2], tmp_path)
        captions.append(picture.caption)
    assert [budgets for _, budgets in drawn] == [[1], [2]]
    assert [list(lengths.values()) for lengths, _ in drawn] == [[2], [size]]
    assert "within its budget of 1, which it may spend on any image; at smaller" in captions[0]
    assert "searching for the fewest changes" in captions[1]


def test_each_step_rule_has_an_ablation_of_its_own(drawn, tmp_path):
    suite = SimpleNamespace(grid={"sigma": [0.001, 1.0], "tau": [0.3]})
    findings = [
        finding(attack=SigmaZero(num_steps=10, sigma=sigma, step_rule=rule))
        for rule in ("adam", "sgd")
        for sigma in suite.grid["sigma"]
    ]
    found = draw_pictures(findings, suite, [], tmp_path)
    assert [[cell.sigma for cell in cells] for cells in drawn] == [[0.001, 1.0]] * 2
    names = ["N=10-features.png", "N=10-features-sgd.png"]
    assert [picture.path.name for picture in found] == names
    assert len({picture.caption for picture in found}) == 2


def test_ablations_of_other_options_are_kept_apart(drawn, tmp_path):
    suite = SimpleNamespace(grid={"sigma": [0.001, 1.0], "tau": [0.3]})
    findings = [
        finding(attack=SigmaZero(num_steps=10, sigma=sigma, patience=patience))
        for patience in (None, 2)
        for sigma in suite.grid["sigma"]
    ]
    found = draw_pictures(findings, suite, [], tmp_path)
    assert [[cell.sigma for cell in cells] for cells in drawn] == [[0.001, 1.0]] * 2
    names = ["N=10-features.png", "N=10-features-patience=2.png"]
    assert [picture.path.name for picture in found] == names
    assert found[1].caption.startswith("σ-zero patience=2, N=10")


def test_a_grid_of_other_options_has_its_curves_in_one_picture_for_each_net(drawn, tmp_path):
    suite = SimpleNamespace(grid={"eta": [0.5, 1.0]})
    findings = [
        finding(net, attack=SigmaZero(num_steps=10, eta=eta))
        for net in ("M1", "M2")
        for eta in suite.grid["eta"]
    ]
    found = draw_pictures(findings, suite, [2], tmp_path)
    assert [list(curves) for curves in drawn] == [["sigma-zero eta=0.5", "sigma-zero eta=1.0"]] * 2
    assert [picture.path.name for picture in found] == [
        "M1-N=10-features.png",
        "M2-N=10-features.png",
    ]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job that is done, and what is found when its run is followed: something to draw."""
    trace = SimpleNamespace(l0=torch.tensor([2.0]), improvements=[1])
    monkeypatch.setattr(pictures, "trace_attack", lambda *arguments: trace)
    for name in ("loss_terms_figure", "moments_figure", "_explanation"):
        monkeypatch.setattr(pictures, name, lambda *arguments: None)

    def save(figure, path):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    monkeypatch.setattr(pictures, "save_figure", save)
    return SimpleNamespace(
        label="M1-10",
        model="M1",
        net=nn.Linear(1, 1),
        attack=SigmaZero(num_steps=10),
        steps=10,
        records=Records(tmp_path / "batches" / "M1-10", {}),
        trace=trace,
    )


def drawn_of(job, l0, out):
    """Pictures of a job whose only example was broken at ``l0``, and when they were drawn."""
    image, label = torch.zeros(1, 1, 2, 2), torch.zeros(1)
    shown = Examples(
        inputs=image,
        adv_inputs=image,
        labels=label,
        clean_predictions=label,
        adv_predictions=label,
        l0=torch.tensor([l0]),
    )
    found = replace(finding(), examples=shown)
    drawn = [*draw_run(job, found, out), *draw_explanation(job, found, out)]
    return {picture.path: picture.path.stat().st_mtime_ns for picture in drawn}


def test_pictures_of_records_that_are_gone_are_not_shown(job, tmp_path):
    examples = job.records.folder / "examples.safetensors"
    examples.touch()
    first = drawn_of(job, 2.0, tmp_path)
    assert len(first) == 3
    assert drawn_of(job, 2.0, tmp_path) == first  # not once more

    def made_again():
        for path in first:
            os.utime(path, ns=(0, 0))  # some time before the examples

    made_again()
    assert all(time > 0 for time in drawn_of(job, 2.0, tmp_path).values())
    made_again()
    job.trace.l0 = torch.zeros(1)  # the net is wrong from the start: there is nothing to draw
    assert drawn_of(job, 0.0, tmp_path) == {}
    assert not any(path.exists() for path in first)
