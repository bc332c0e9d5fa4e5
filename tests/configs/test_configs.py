import copy
import inspect
import itertools
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Unpack, get_args, get_origin, get_type_hints

import pytest
import pytorch_lightning as pl
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import nn

from sztrain.attacks import AttackMix, SigmaZero
from sztrain.cli.arguments import check_arguments
from sztrain.cli.build import (
    build_callbacks,
    build_method,
    build_net,
    build_trainer,
    make,
    plain,
)
from sztrain.cli.resolvers import register_resolvers
from sztrain.data import ImageDataModule
from sztrain.training import SparseAT

CONFIGS = Path(__file__).parents[2] / "configs"
HAS_OPTUNA = bool(find_spec("hydra_plugins") and find_spec("hydra_plugins.hydra_optuna_sweeper"))
OPTIONS = sorted(
    path.relative_to(CONFIGS)
    for path in CONFIGS.glob("*/*.yaml")
    if path.parent.name != "sweep" or HAS_OPTUNA
)

# What an option needs to be quick, or to be complete.
EXTRA = {
    "model/wrn28": ["model.depth=10", "model.width=1"],
    "model/timm": ["model.name=test_efficientnet"],
    "model/robustbench": ["model.name=Standard", "model.pretrained=false"],
}


@pytest.fixture(autouse=True)
def _apart():
    register_resolvers()
    yield
    GlobalHydra.instance().clear()


@cache
def composed_once(root, *overrides):
    GlobalHydra.instance().clear()
    with initialize_config_module("sztrain.configs", version_base="1.3"):
        return compose(root, ["output_dir=out", *overrides])


def composed(root, *overrides):
    return copy.deepcopy(composed_once(root, *overrides))


def overrides_for(option):
    group, name = option.parent.name, option.stem
    extra = EXTRA.get(f"{group}/{name}", [])
    if group in ("attack", "suite"):
        return "evaluate", [f"{group}={name}"]
    return "train", [f"{group}={name}", *extra]


def ids(options):
    return [str(option.with_suffix("")) for option in options]


def options_of(*groups):
    found = [option for option in OPTIONS if option.parent.name in groups]
    return pytest.mark.parametrize("option", found, ids=ids(found))


def test_every_group_of_the_roots_has_a_folder_with_options():
    train, evaluate = (
        yaml.safe_load((CONFIGS / f"{root}.yaml").read_text())["defaults"]
        for root in ("train", "evaluate")
    )
    chosen = [entry for entry in [*train, *evaluate] if isinstance(entry, dict)]
    for group, name in (item for entry in chosen for item in entry.items()):
        assert name is None or (CONFIGS / group / f"{name}.yaml").is_file(), (group, name)
    assert {path.parent.name for path in CONFIGS.glob("*/*.yaml")} == {
        *("attack", "callbacks", "data", "hydra", "logger", "method", "model"),
        *("experiment", "optimizer", "scheduler", "suite", "sweep", "trainer"),
    }


@pytest.mark.parametrize("option", OPTIONS, ids=ids(OPTIONS))
def test_each_option_composes_and_resolves(option):
    root, overrides = overrides_for(option)
    cfg = composed_once(root, *overrides)
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    for group in ("data", "attack") if root == "evaluate" else ("data", "model", "method"):
        assert resolved[group]["_target_"].count(".") >= 2


@options_of("data")
def test_each_data_set_serves_both_commands(option):
    shared = [composed(root, f"data={option.stem}") for root in ("train", "evaluate")]
    train, evaluate = (plain(cfg.data) for cfg in shared)
    assert train == evaluate
    assert plain(shared[1].budgets) == train["recipe"]["gauge_budgets"]
    arguments = {key: value for key, value in train.items() if key not in ("name", "recipe")}
    data = make(arguments, "data")
    assert isinstance(data, ImageDataModule)
    assert data.name == train["name"] == option.stem
    assert data.batch_size == train["batch_size"]
    assert data.in_channels == train["in_channels"]


@options_of("attack")
def test_each_attack_is_built(option):
    cfg = composed_once("evaluate", f"attack={option.stem}")
    attack = make(plain(cfg.attack) | {"num_steps": 7, "budget": 3}, "attack")
    assert (attack.num_steps, attack.budget, attack.unit) == (7, 3, "features")


def test_the_attack_of_an_evaluation_is_that_of_the_paper():
    assert make(composed("evaluate").attack, "attack") == SigmaZero(num_steps=1000)


class Shape:
    """Stands for a data module of which nothing but the classes is asked."""

    def __init__(self, num_classes):
        self.num_classes = num_classes


@options_of("model", "method", "optimizer", "scheduler")
def test_each_net_method_optimizer_and_scheduler_is_built(option):
    root, overrides = overrides_for(option)
    cfg = composed(root, *overrides)
    net = build_net(cfg.model)
    assert isinstance(net, nn.Module)
    method = build_method(cfg, net, Shape(10), run_id="abc")
    assert isinstance(method, pl.LightningModule)
    described = method.hparams
    assert described["net"] == plain(cfg.model)
    assert described["data"]["name"] == cfg.data.name
    assert described["method"]["run_id"] == "abc"
    optimizer = method.optimizer(net.parameters())
    assert optimizer.param_groups[0]["lr"] == cfg.optimizer.lr
    assert method.scheduler(optimizer, 100).optimizer is optimizer


@options_of("callbacks", "logger", "trainer")
def test_each_trainer_logger_and_callback_is_built(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, overrides = overrides_for(option)
    cfg = composed(root, *overrides)
    if option.stem == "ddp":
        cfg.trainer.accelerator, cfg.trainer.devices = "cpu", 1
    callbacks = build_callbacks(cfg.callbacks)
    assert list(callbacks) == [key for key, node in cfg.callbacks.items() if node is not None]
    trainer = build_trainer(cfg, list(callbacks.values()), run_id="abc")
    assert len(trainer.loggers) == len(cfg.logger)
    assert trainer.max_epochs == cfg.data.recipe.epochs
    assert not list(tmp_path.iterdir())  # nothing begins before all is checked


def test_loggers_are_as_many_as_asked_for():
    sizes = {name: list(composed("train", f"logger={name}").logger) for name in ("csv", "wandb")}
    assert sizes == {"csv": ["csv"], "wandb": ["wandb"]}
    assert list(composed("train").logger) == ["csv", "wandb"]
    assert composed("train", "logger=none").logger == {}


def test_wandb_is_offline_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert composed("train").logger.wandb.mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert composed("train").logger.wandb.mode == "online"


# --- every argument has its key, so that no override needs a `+` ---

GIVEN_BY_THE_PROGRAM = {
    "method": {"net", "num_classes", "optimizer", "scheduler", "hyper_parameters"},
    "trainer": {"logger", "callbacks"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "total_steps"},
}

# Switches of torch's implementation, not of the method.
TECHNICAL = {"foreach", "maximize", "capturable", "differentiable", "fused"}


def parameters_of(target):
    """Names of all arguments, also of those that ``**kwargs`` hand on to a base class."""
    called = get_object(target)
    names = set()
    for cls in called.__mro__ if inspect.isclass(called) else [called]:
        function = cls.__init__ if inspect.isclass(cls) else cls
        kinds = inspect.signature(function).parameters
        names |= {
            name
            for name, parameter in kinds.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }
        passed_on = [name for name, p in kinds.items() if p.kind is p.VAR_KEYWORD]
        if not passed_on:
            break
        hint = get_type_hints(function).get(passed_on[0])
        if get_origin(hint) is Unpack:  # all that is handed on is written out
            names |= set(get_args(hint)[0].__annotations__)
            break
    return names - {"self"}


@options_of("attack", "data", "method", "model", "optimizer", "scheduler", "trainer")
def test_each_option_names_every_argument(option):
    root, overrides = overrides_for(option)
    group = option.parent.name
    node = plain(composed_once(root, *overrides)[group])
    expected = parameters_of(node["_target_"]) - GIVEN_BY_THE_PROGRAM.get(group, set())
    if group == "optimizer":
        expected -= TECHNICAL
    assert expected - set(node) == set()


def test_the_gauge_and_its_attacks_name_every_argument():
    gauge = plain(composed("train").callbacks.gauge)
    assert parameters_of(gauge["_target_"]) - set(gauge) == set()
    for attack in (gauge["attack"], gauge["verdict"], plain(composed("train").method.attack)):
        assert parameters_of(attack["_target_"]) - set(attack) == set()


def made_for_one_dataset(attack):
    """``gse_mnist``, say, which is not the default on purpose."""
    datasets = (option.stem for option in OPTIONS if option.parent.name == "data")
    return attack.stem.endswith(tuple(f"_{name}" for name in datasets))


# Options that exist to differ from the default, and in what.
VARIANTS = {"sparse_pgd_projected": {"projected": True}, "sigma_zero_sgd": {"step_rule": "sgd"}}

DEFAULT_ATTACKS = [
    option
    for option in OPTIONS
    if option.parent.name == "attack" and not made_for_one_dataset(option)
]


@pytest.mark.parametrize("option", DEFAULT_ATTACKS, ids=ids(DEFAULT_ATTACKS))
def test_defaults_of_the_configs_are_those_of_the_constructors(option):
    """A person who leaves the command line for Python finds the same behaviour."""
    attack = make(composed("evaluate", f"attack={option.stem}").attack, "attack")
    assert attack == type(attack)(**VARIANTS.get(option.stem, {}))


@pytest.mark.parametrize("method", ["sparse_at", "trades", "mart"])
def test_the_adversary_is_the_mix_where_nobody_names_another(method):
    attack = make(composed("train", f"method={method}").method.attack, "method.attack")
    assert attack == AttackMix(num_steps=20, recheck=False)
    # Nets that meet the smallest changes alone withstand little else.
    assert 0 < attack.weights["sigma_zero"] < sum(attack.weights.values())
    assert attack.members["sigma_zero"].step_rule == "sgd"


def test_members_of_a_mix_are_set_one_by_one():
    cfg = composed(
        "train",
        "attack@method.attack=attack_mix",
        "+attack@method.attack.members.sparse_rs=sparse_rs",
        "+method.attack.weights.sparse_rs=0.5",
        "method.attack.weights.budgeted_sigma_zero=0.4",
        "method.attack.members.sigma_zero.num_steps=10",
        "method.attack.unit=pixels",
    )
    mix = make(cfg.method.attack, "method.attack")
    assert list(mix.weights.values()) == [0.25, 0.4, 0.375, 0.375, 0.5]
    drawn = dict(mix.drawn(seed) for seed in range(30))
    steps = {name: member.num_steps for name, member in drawn.items()}
    assert steps.pop("sigma_zero") == 10
    others = ["budgeted_sigma_zero", "sparse_pgd", "sparse_pgd_projected", "sparse_rs"]
    assert steps == dict.fromkeys(others, 20)
    assert {(member.unit, member.recheck) for member in drawn.values()} == {("pixels", False)}


# --- what brings what along ---


def chosen(*overrides):
    cfg = composed("train", *overrides)
    parts = (cfg.optimizer._target_, cfg.scheduler._target_)
    return (cfg.data.name, *(part.rpartition(".")[2] for part in parts))


CIFAR_RECIPE = ("cifar10", "SGD", "multistep")


@pytest.mark.parametrize("model", ["wrn28", "preact_resnet18", "resnet18"])
def test_a_cifar_net_brings_its_data_and_its_recipe(model):
    assert chosen(f"model={model}") == CIFAR_RECIPE


@pytest.mark.slow
def test_what_the_command_names_wins_over_what_is_brought_along():
    assert chosen() == ("digits", "AdamW", "cosine")
    assert chosen("model=small_cnn") == ("mnist", "AdamW", "cosine")
    assert chosen("model=robustbench", "model.name=x") == CIFAR_RECIPE
    for order in itertools.permutations(["model=wrn28", "data=mnist"]):
        assert chosen(*order) == ("mnist", "AdamW", "cosine")
    assert chosen("model=wrn28", "optimizer=adamw") == ("cifar10", "AdamW", "multistep")
    assert chosen("data=cifar100", "scheduler=cosine") == ("cifar100", "SGD", "cosine")
    assert chosen("data=folder", "model=timm", "model.name=x")[0] == "folder"


def test_the_net_follows_the_data():
    model = composed("train", "model=wrn28", "data=mnist").model
    assert (model.num_classes, model.in_channels) == (10, 1)
    model = composed("train", "model=wrn28", "data=cifar100").model
    assert (model.num_classes, model.in_channels) == (100, 3)


@options_of("data")
def test_the_recipe_of_the_data_reaches_the_training(option):
    cfg = composed("train", f"data={option.stem}")
    recipe = plain(cfg.data.recipe)
    assert cfg.trainer.max_epochs == recipe["epochs"]
    assert cfg.method.budget == recipe["budget"]
    assert cfg.method.ramp_epochs == recipe["ramp_epochs"] <= recipe["epochs"]
    assert cfg.method.clean_share == recipe["clean_share"]
    assert plain(cfg.callbacks.gauge.budgets) == recipe["gauge_budgets"]
    assert cfg.callbacks.gauge.every_n_epochs == recipe.get("gauge_every_n_epochs", 1)
    assert cfg.method.channels_last == recipe.get("channels_last", False)


@pytest.mark.parametrize("method", ["standard", "sparse_at", "trades", "mart"])
def test_every_method_takes_layout_and_gauged_epochs_from_the_recipe(method):
    cfg = composed("train", f"method={method}", "data=digits")
    assert (cfg.method.channels_last, cfg.callbacks.gauge.every_n_epochs) == (True, 2)
    options = "data.recipe.channels_last=false", "data.recipe.gauge_every_n_epochs=5"
    cfg = composed("train", f"method={method}", *options)
    assert (cfg.method.channels_last, cfg.callbacks.gauge.every_n_epochs) == (False, 5)


@pytest.mark.parametrize("method", ["sparse_at", "trades"])
def test_the_gauge_is_stronger_than_the_adversary_and_the_verdict_than_the_gauge(method):
    cfg = composed("train", f"method={method}")
    gauge = cfg.callbacks.gauge
    assert cfg.method.attack.num_steps < gauge.attack.num_steps < gauge.verdict.num_steps == 1000


def test_one_key_each_for_the_verdict_the_seed_and_the_monitor():
    cfg = composed(
        "train",
        "verdict.num_steps=9",
        "verdict.num_samples=5",
        "seed=3",
        "monitor=val/clean_acc",
    )
    assert (cfg.callbacks.gauge.verdict.num_steps, cfg.callbacks.gauge.verdict_samples) == (9, 5)
    assert (cfg.data.seed, cfg.callbacks.epoch_seed.seed) == (3, 3)
    assert cfg.callbacks.best.monitor == "val/clean_acc"


def test_the_monitor_follows_the_unit_of_the_gauge():
    assert composed("train").callbacks.best.monitor == "val/robust_acc_worst@4"
    cfg = composed("train", "callbacks.gauge.attack.unit=pixels")
    assert cfg.callbacks.best.monitor == "val/robust_acc_worst_px@4"
    assert cfg.callbacks.gauge.probe.unit == "pixels"


def test_the_probe_tries_the_plain_step_beside_a_search_that_needs_no_gradient():
    attack = make(composed("train").callbacks.gauge.probe, "probe")
    assert list(attack.members) == ["sigma_zero_sgd", "sparse_rs"]
    assert attack.members["sigma_zero_sgd"].step_rule == "sgd"
    assert (attack.num_steps, attack.num_queries, attack.budget) == (100, 300, 4)


def test_without_a_probe_the_monitor_is_the_mean():
    cfg = composed("train", "callbacks.gauge.probe=null")
    assert cfg.callbacks.best.monitor == "val/mean_l0"


def test_without_a_gauge_the_monitor_is_clean_accuracy():
    for without in ("callbacks.gauge=null", "~callbacks.gauge"):
        assert composed("train", without).callbacks.best.monitor == "val/clean_acc"


def test_a_wrong_type_is_refused_wherever_it_stands():
    with pytest.raises(ValueError, match=r"`callbacks.gauge.verdict.num_steps` to be a whole num"):
        build_callbacks(composed("train", "verdict.num_steps=abc").callbacks)
    with pytest.raises(ValueError, match=r"`trainer.max_epochs` to be a whole number or null"):
        check_arguments(plain(composed("train", "trainer.max_epochs=1.5").trainer), "trainer")


# --- experiments ---

HEADINGS = ["Data:", "Net:", "Budget:", "Reached:"]


@options_of("experiment")
def test_each_experiment_says_what_it_trains_and_what_it_reached(option):
    text = (CONFIGS / option).read_text()
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    for heading in HEADINGS:
        assert any(line.startswith(f"# {heading}") for line in comments), heading


@options_of("experiment")
def test_each_experiment_is_gauged_in_the_unit_and_at_the_budget_that_it_trains_for(option):
    cfg = composed("train", f"experiment={option.stem}")
    gauge, method = cfg.callbacks.gauge, cfg.method
    assert method.attack.unit == gauge.attack.unit == gauge.probe.unit == gauge.verdict.unit
    assert gauge.probe.budget in gauge.budgets
    suffix = "_px" if gauge.attack.unit == "pixels" else ""
    worst = f"val/robust_acc_worst{suffix}@{gauge.probe.budget}"
    assert cfg.callbacks.best.monitor == cfg.callbacks.guard.monitor == worst
    if "px" in option.stem:
        assert option.stem.endswith(f"{method.budget}px")
        assert method.attack.unit == "pixels"
        assert method.budget == gauge.probe.budget
        assert method.budget_multiplier == (1 if "narrow" in option.stem else 6)


def test_gauge_and_verdict_count_what_the_training_counts():
    for method, expected in (
        ("method.attack.unit=pixels", "pixels"),
        ("method=standard", "features"),
    ):
        gauge = composed("train", "model=wrn28", method).callbacks.gauge
        assert gauge.attack.unit == gauge.probe.unit == gauge.verdict.unit == expected
    apart = ["method.attack.unit=pixels", "callbacks.gauge.attack.unit=features"]
    assert composed("train", "model=wrn28", *apart).callbacks.gauge.verdict.unit == "features"


def test_an_experiment_gives_way_to_the_command():
    cfg = composed("train", "experiment=cifar10_prn18_20px", "method=mart", "method.budget=7")
    assert cfg.method._target_.endswith("MART")
    assert (cfg.method.budget, cfg.method.attack.unit, cfg.model.activation) == (
        7,
        "pixels",
        "softplus",
    )


# --- sweeps ---


def test_a_sweep_searches_what_the_recipe_has():
    params = yaml.safe_load((CONFIGS / "sweep" / "optuna.yaml").read_text())["hydra"]["sweeper"]
    assert params["direction"] == "maximize"
    overrides = []
    for key, space in params["params"].items():
        kind, _, values = space.rstrip(")").partition("(")
        assert kind in ("choice", "interval")
        overrides.append(f"{key}={values.split(', ')[-1]}")
    cfg = composed("train", *overrides)  # a key that is not there would be refused
    assert isinstance(build_method(cfg, build_net(cfg.model), Shape(10), run_id="abc"), SparseAT)
