"""Check an installed sztrain, from any folder but the checkout: ``python check_installed.py``.

Imports every module, composes both commands, reads the data files, loads and runs the nets that are
shipped, and makes sure that no top-level package came along. Exits with 0 or with a traceback.
"""

import importlib
import importlib.util
import pkgutil
import sys
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import sztrain
from sztrain.cli.resolvers import register_resolvers
from sztrain.evaluation.published import fixed_budget_rows, minimum_norm_rows, net_rows
from sztrain.models import CARDS, describe_net, load_net


def check_place():
    package = Path(sztrain.__file__).parent
    assert not (package.parent / "pyproject.toml").exists(), f"{package} is a checkout"
    for leaked in ("callbacks", "configs"):
        assert importlib.util.find_spec(leaked) is None, leaked
    assert not (package.parent / "tests" / "packaging").exists()  # RobustBench installs a `tests`
    assert (package / "py.typed").is_file()
    return package


def check_modules():
    names = [found.name for found in pkgutil.walk_packages(sztrain.__path__, "sztrain.")]
    for name in names:
        importlib.import_module(name)
    for needed in ("attacks", "callbacks", "cli", "configs", "data", "training"):
        assert f"sztrain.{needed}" in names, needed
    return names


def check_commands():
    register_resolvers()
    for root in ("train", "evaluate"):
        with initialize_config_module("sztrain.configs", version_base="1.3"):
            cfg = compose(root, ["output_dir=out"])
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    scripts = {script.name: script for script in entry_points(group="console_scripts")}
    for name in ("sztrain-train", "sztrain-evaluate"):
        assert callable(scripts[name].load()), name


def check_data_files(package):
    assert len(list(files("sztrain.configs").rglob("*.yaml"))) > 20
    assert (len(minimum_norm_rows()), len(fixed_budget_rows()), len(net_rows())) == (300, 240, 18)
    shipped = [name for name, card in CARDS.items() if not card.spec]
    weights = {path.name for path in package.rglob("*.safetensors")}
    assert weights == {CARDS[name].file for name in shipped}, weights
    sides = {"digits": 8, "mnist": 28}
    for name in shipped:
        side = sides[describe_net(name)["data"]["name"]]
        logits = load_net(name)(torch.rand(2, 1, side, side))
        assert logits.shape == (2, 10)
        assert logits.isfinite().all()
    return shipped


if __name__ == "__main__":
    place = check_place()
    modules = check_modules()
    check_commands()
    nets = check_data_files(place)
    sys.stdout.write(
        f"sztrain {version('sztrain')} in {place}: {len(modules)} modules, both commands, "
        f"nets {', '.join(nets)}\n"
    )
