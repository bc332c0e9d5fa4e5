"""The sweep of examples/: every command that W&B would run is one that train.py takes."""

from itertools import product
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from sztrain.cli.resolvers import register_resolvers

ROOT = Path(__file__).parents[2]
SWEEP = yaml.safe_load((ROOT / "examples" / "sweep.yaml").read_text())


@pytest.fixture(autouse=True)
def _apart():
    register_resolvers()
    yield
    GlobalHydra.instance().clear()


def ends(parameter):
    """All values of a parameter, or the ends of its range."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def command(values):
    """As W&B's agent puts it together."""
    # Takes as long to import as all of torch.
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    args = {name: {"value": value} for name, value in values.items()}
    macros = create_sweep_command_args({"args": args})
    macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [SWEEP["program"]]}
    words = []
    for word in create_sweep_command(list(SWEEP["command"])):
        is_macro = word.startswith("${") and word.endswith("}")
        words += macros[word[2:-1]] if is_macro else [word]
    return words


@pytest.mark.slow
def test_every_command_composes_and_its_values_arrive():
    names = list(SWEEP["parameters"])
    choices = list(product(*map(ends, SWEEP["parameters"].values())))
    for chosen in choices[:: max(1, len(choices) // 8)]:
        values = dict(zip(names, chosen, strict=True))
        env, interpreter, program, *overrides = command(values)
        assert (env, interpreter, program) == ("/usr/bin/env", "python", "train.py")
        with initialize_config_module("sztrain.configs", version_base="1.3"):
            cfg = compose("train", ["output_dir=out", *overrides])
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        for name, value in values.items():
            if name != "method":
                assert OmegaConf.select(cfg, name) == value
        assert cfg.trainer.max_epochs == values["data.recipe.epochs"]
        methods = {"SparseAT": "sparse_at", "TRADES": "trades"}
        assert methods[cfg.method._target_.rpartition(".")[2]] == values["method"]
        assert cfg.logger.wandb.mode == "online"
        assert cfg.callbacks.best.mode == "max"


def test_the_program_is_there():
    assert (ROOT / SWEEP["program"]).is_file()
