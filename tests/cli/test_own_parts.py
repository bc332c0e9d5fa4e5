"""Attacks, data sets and suites of a person's own, from a folder of configs and a module beside."""

import json
import sys

import pytest
import torch
from omegaconf import OmegaConf
from one_line import assert_one_line

from sztrain.cli.net_data import with_data_of_net
from sztrain.cli.presets import PRESETS
from sztrain.models import describe_net, digits_cnn

MODULE = '''
from dataclasses import dataclass, replace

from sztrain.attacks import SigmaZero
from sztrain.data import Digits
from sztrain.data.samples import TensorSamples


class Dimmed(Digits):
    name = "dimmed"

    made = []

    def __init__(
        self,
        *,
        contrast: float = 1.0,
        tags: dict | None = None,
        cache: bool = False,
        **options,
    ):
        super().__init__(**options)
        self.contrast, self.tags = contrast, tags
        self.made.append((tags, cache))

    def load(self):
        return [
            TensorSamples(images=self.contrast * part.images / 16, labels=part.labels, scale=1.0)
            for part in super().load()
        ]


class Bare(Dimmed):
    def load(self):
        return [part.images / 16 for part in Digits.load(self)]


class Absent(Dimmed):
    def load(self):
        return open(self.root / "absent.npz")


@dataclass(frozen=True, kw_only=True)
class Plain:
    """An attack without an option that the training's configs know of."""

    num_steps: int = 10
    unit: str = "features"
    budget: int | None = None

    def __call__(self, net, inputs, labels):
        return SigmaZero(num_steps=self.num_steps, unit=self.unit, budget=self.budget)(
            net, inputs, labels
        )


class Liar(Plain):
    def __call__(self, net, inputs, labels):
        result = super().__call__(net, inputs, labels)
        return replace(result, l0=result.l0 / 2)
'''

DIMMED = """
defaults: [base/images@_here_, _self_]
_target_: own_parts.Dimmed
name: dimmed
num_classes: 10
in_channels: 1
contrast: 1.0
tags: null
recipe: {budget: 4, gauge_budgets: [2], probe_budget: 2}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of configs, and the module that they name."""
    (tmp_path / "own_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    for group in ("attack", "data", "suite"):
        (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / "data" / "dimmed.yaml").write_text(DIMMED)
    for name in ("Plain", "Liar"):
        text = f"_target_: own_parts.{name}\nnum_steps: 10\nunit: features\nbudget: null\n"
        (tmp_path / "mine" / "attack" / f"{name.lower()}.yaml").write_text(text)
    yield tmp_path / "mine"
    sys.modules.pop("own_parts", None)


TRAIN = "train --config-dir=mine method=standard model=digits_cnn"


def test_a_data_set_is_judged_as_it_was_trained_on(call, own, tiny, without_pictures):
    words = "'data.tags={a: [1, x]}' ~data.val_fraction"
    outcome = call(
        f"{TRAIN} data=dimmed data.contrast=0.5 {words} {tiny} model.width=8 hydra.run.dir=out"
    )
    assert outcome.status == 0, outcome.err
    described = describe_net("out/checkpoints/last.ckpt")["data"]
    assert (described["contrast"], described["tags"]) == (0.5, {"a": [1, "x"]})
    assert described["val_fraction"] == 0.1  # which the config leaves to the class
    judge = "evaluate --config-dir=mine net=out/checkpoints/last.ckpt num_samples=4"
    outcome = call(f"{judge} attack.num_steps=2 hydra.run.dir=judged")
    assert outcome.status == 0, outcome.err
    data = OmegaConf.load("judged/config.yaml").data
    assert (data.contrast, data.tags) == (0.5, {"a": [1, "x"]})
    completed = with_data_of_net(["net=out/checkpoints/last.ckpt", "data.tags.a=5"])
    assert completed.index('++data.tags={a:[1,"x"]}') < completed.index("data.tags.a=5")
    assert "++data.split_seed=0" in completed  # which the config leaves to its base
    assert not any(word.startswith("++data.limit_train") for word in completed)


def checkpoint_of(folder, name, **data):
    """Path of a checkpoint that a training on the dimmed digits may have left."""
    net = {"_target_": "sztrain.models.digits_cnn", "width": 2}
    weights = {f"net.{key}": tensor for key, tensor in digits_cnn(width=2).state_dict().items()}
    told = {"net": net, "data": {"name": "dimmed", **data}, "unit": "features", "method": {}}
    path = folder / f"{name}.ckpt"
    torch.save({"state_dict": weights, "hyper_parameters": told}, path)
    return path


OF_DIMMED = "num_samples=4 attack.num_steps=2 hydra.run.dir=judged"


@pytest.mark.parametrize(
    ("brought", "words", "judged_on"),
    [
        ({"a": 1}, "", {"a": 1}),
        ({"a": 1}, "data.tags.a=5", {"a": 5}),
        ({"a": 1}, "+data.tags.c=5", {"a": 1, "c": 5}),
        ({"a": 1}, "data.tags=null", None),
        ({}, "", {}),
        (None, "", None),
        ({"a": {"c": 1}}, "data.tags.a.c=2", {"a": {"c": 2}}),
    ],
)
def test_a_mapping_that_a_net_brings_takes_the_place_of_the_configs(
    call, own, without_pictures, brought, words, judged_on
):
    text = DIMMED.replace("tags: null", "tags: {b: 2, a: {d: 3}}")
    (own / "data" / "dimmed.yaml").write_text(text)
    net = checkpoint_of(own.parent, "net", tags=brought)
    outcome = call(f"evaluate --config-dir=mine net={net} {words} {OF_DIMMED}")
    assert outcome.status == 0, outcome.err
    assert OmegaConf.load("judged/config.yaml").data.tags == judged_on


def test_an_option_that_the_data_no_longer_has_is_named_and_can_be_left_out(
    call, own, without_pictures
):
    net = checkpoint_of(own.parent, "old", gone=3)
    command = f"evaluate --config-dir=mine net={net} {OF_DIMMED}"
    was = "trained with data.gone=3, an option that data=dimmed no longer has"
    assert_one_line(call(command), [f"{net} was {was}; ~data.gone leaves it out"])
    outcome = call(f"{command} ~data.gone")
    assert outcome.status == 0, outcome.err
    assert "gone" not in OmegaConf.load("judged/config.yaml").data
    other = checkpoint_of(own.parent, "older", gone=4)
    both = f"evaluate --config-dir=mine net=[{net},{other}] {OF_DIMMED}"
    assert_one_line(call(both), ["these nets differ in data.gone"])
    assert call(f"{both} ~data.gone hydra.run.dir=both").status == 0


@pytest.mark.parametrize(
    ("wrong", "fragment"),
    [
        (("name: dimmed\n", ""), "data.name"),
        (("name: dimmed", "name: other"), "'other' and 'dimmed'"),
        (("base/images@_here_, ", ""), "there is no data.recipe."),
        (("own_parts.Dimmed", "builtins.dict"), "expected an ImageDataModule, got a dict"),
        (("own_parts", "other_parts"), "data: there is no module other_parts"),
        (("own_parts.Dimmed", "own_parts.Bare"), "`load` of Bare to return two samples"),
        (("own_parts.Dimmed", "own_parts.Absent"), "data of Absent is not on disk: "),
    ],
)
def test_a_data_set_that_cannot_be_found_again_is_refused(refused, own, wrong, fragment):
    (own / "data" / "dimmed.yaml").write_text(DIMMED.replace(*wrong))
    refused(f"{TRAIN} data=dimmed", fragment)


def test_an_option_of_another_name_is_refused(refused, own):
    (own / "data" / "dimmed.yaml").rename(own / "data" / "faint.yaml")
    refused(f"{TRAIN} data=faint", "their option, 'faint'", "got 'dimmed' and 'dimmed'")


@pytest.mark.parametrize(
    "place", ["method.attack", "callbacks.gauge.probe", "callbacks.gauge.verdict"]
)
@pytest.mark.parametrize("attack", ["plain", "sigma_zero"])
def test_an_attack_takes_the_place_of_another_with_more_options(call, own, tiny, place, attack):
    """The configs set options of their own attacks, which this one may not have."""
    shown = tiny.replace("callbacks.gauge.probe.num_queries=1", "")
    command = f"train --config-dir=mine model=digits_cnn attack@{place}={attack}"
    outcome = call(f"{command} {shown} method.attack.num_steps=2 hydra.run.dir=out")
    assert outcome.status == 0, outcome.err
    assert json.loads((own.parent / "out" / "summary.json").read_text())


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("method.attack", "method.attack.recheck=true"),
        ("method.attack", "method.attack={recheck:false}"),
        ("callbacks.gauge.verdict", "callbacks.gauge.verdict={num_queries:5}"),
        ("callbacks.gauge.probe", "callbacks.gauge={probe:{num_queries:300}}"),
        ("callbacks.gauge.probe", "experiment=own"),
    ],
)
def test_an_option_that_a_person_sets_is_not_dropped(refused, own, place, words):
    (own / "experiment").mkdir()
    experiment = "# @package _global_\ncallbacks: {gauge: {probe: {num_queries: 5}}}\n"
    (own / "experiment" / "own.yaml").write_text(experiment)
    command = f"train --config-dir=mine attack@{place}=plain {words}"
    refused(command, f"{place}: ", "recheck" if "recheck" in words else "num_queries")


def test_presets_are_what_the_configs_say(composed):
    cfg = composed("train")
    for place, options in PRESETS.items():
        values = OmegaConf.to_container(OmegaConf.select(cfg, place))
        assert {option: values[option] for option in options} == options


@pytest.mark.parametrize("place", ["attack", "probe", "verdict"])
def test_a_mix_is_no_judge(refused, place):
    command = f"train attack@callbacks.gauge.{place}=attack_mix"
    refused(command, f"`callbacks.gauge.{place}` to be one that judges, got AttackMix")


def test_an_attack_that_claims_what_it_does_not_show_is_refused(call, own):
    outcome = call("evaluate --config-dir=mine attack=liar net=digits_standard num_samples=8")
    assert outcome.status == 2
    assert "Liar answered an `l0` that is not how many features" in outcome.err
    assert "sztrain.attacks.base.run_attack" in outcome.err


def test_records_of_an_attack_are_those_of_its_code(call, own, without_pictures):
    command = "evaluate --config-dir=mine attack=plain net=digits_standard num_samples=2"
    assert call(f"{command} hydra.run.dir=out").status == 0
    path = own.parent / "own_parts.py"
    sys.modules.pop("own_parts")
    path.write_text("# The same.\n" + MODULE.replace("An attack without", "One without"))
    outcome = call(f"{command} hydra.run.dir=out")
    assert outcome.status == 0
    assert "nothing was run anew" in outcome.out
    sys.modules.pop("own_parts")
    path.write_text(MODULE.replace("result.l0 / 2", "result.l0 / 3"))
    outcome = call(f"{command} hydra.run.dir=out")
    assert outcome.status == 2
    assert f"another run: the code of the attack in {path} has changed since" in outcome.err


def test_nets_that_read_the_data_otherwise_are_judged_together_as_the_command_says(
    call, own, without_pictures
):
    text = DIMMED.replace("contrast: 1.0", "contrast: 1.0\ncache: false")
    (own / "data" / "dimmed.yaml").write_text(text)
    nets = ",".join(
        str(checkpoint_of(own.parent, str(cache), cache=cache)) for cache in (True, False)
    )
    command = f"evaluate --config-dir=mine net=[{nets}] {OF_DIMMED}"
    assert_one_line(call(command), ["these nets differ in data.cache", "or give data.cache=..."])
    outcome = call(f"{command} data.cache=true")
    assert outcome.status == 0, outcome.err
    assert sys.modules["own_parts"].Dimmed.made == [(None, True)]


@pytest.fixture
def suite_of(own):
    """A command that judges nets side by side on as little as can be."""

    def write(*nets):
        text = SUITE.replace("[M1]", f"[{', '.join(map(str, nets))}]", 1)
        (own / "suite" / "own.yaml").write_text(f"{text}num_samples: 4\nfixed_budgets: []\n")
        return "evaluate --config-dir=mine suite=own hydra.run.dir=suite"

    return write


def test_a_suite_judges_each_net_as_it_was_trained(call, own, suite_of, without_pictures):
    text = DIMMED.replace("tags: null", "tags: {b: 2}")
    text = text.replace("contrast: 1.0", "cache: false\ncontrast: 1.0")
    (own / "data" / "dimmed.yaml").write_text(text)
    nets = [
        checkpoint_of(own.parent, str(cache), tags={"a": 1}, cache=cache) for cache in (True, False)
    ]
    outcome = call(suite_of(*nets))
    assert outcome.status == 0, outcome.err
    assert sys.modules["own_parts"].Dimmed.made == [({"a": 1}, True), ({"a": 1}, False)]


def test_a_suite_names_an_option_that_the_data_no_longer_has(call, own, suite_of):
    net = checkpoint_of(own.parent, "old", gone=3)
    told = ["data.gone=3, an option", f"judged alone: net={net} ~data.gone"]
    assert_one_line(call(suite_of(net)), told)


SUITE = "defaults: [base/suite@_here_, _self_]\nmodels: [M1]\nattacks: [plain]\nnum_steps: [1]\n"


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (SUITE + "model: M1\n", ["suite.model: there is no such option", "worst_case"]),
        ("models: [M1]\nattacks: [plain]\nnum_steps: [1]\n", ["suite.batch_size: it is missing"]),
        ("defaults: [base/suite@_here_, _self_]\nmodels: [M1]\n", ["suite.attacks: it is missing"]),
    ],
)
def test_a_suite_that_is_none_is_refused(refused, own, text, fragments):
    (own / "suite" / "own.yaml").write_text(text)
    refused("evaluate --config-dir=mine suite=own", *fragments)


def test_where_ones_own_is_to_be_found_is_told(refused, own):
    refused("evaluate attack=plain", "there is no attack=plain", "needs --config-dir")
    place = f"hydra.searchpath=[file://{own}]"
    for train in (TRAIN, f"{TRAIN.replace('--config-dir=mine', '')} {place}"):
        refused(f"{train} data=dimmed data.contrats=1", "did you mean data.contrast?")
    assert "--config-dir" not in refused(
        f"evaluate {place} attack=plane", "expected one of", "plain"
    )
