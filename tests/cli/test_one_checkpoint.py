"""Sweeps whose runs would go on from one checkpoint, and the hint after one was interrupted."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sztrain.cli.one_checkpoint import how_to_go_on, refuse_shared_checkpoint
from sztrain.errors import InputError


@pytest.mark.parametrize(
    "command",
    [
        "-m seed=0,1 ckpt_path=a.ckpt",
        "-m seed=range(0,3) ckpt_path=a.ckpt",
        "-m ckpt_path=a.ckpt,b.ckpt seed=0,1",
        "-m optimizer.lr=interval(0,1) ckpt_path=a.ckpt",
        "-m sweep=optuna ckpt_path=a.ckpt",
        "-m hydra/sweeper=optuna ckpt_path=a.ckpt",
        "hydra.mode=MULTIRUN seed=0,1 ckpt_path=a.ckpt",
    ],
)
def test_several_runs_of_one_checkpoint_are_refused(command):
    with pytest.raises(InputError, match="cannot go on from one checkpoint"):
        refuse_shared_checkpoint(shlex.split(command))


@pytest.mark.parametrize(
    "command",
    [
        "",
        "ckpt_path=a.ckpt seed=3",
        "-m seed=0,1",
        "-m seed=0,1 ckpt_path=null",
        "-m seed=0,1 ~ckpt_path",
        "-m seed=0,1 'ckpt_path=runs/${seed}/last.ckpt'",
        "-m seed=choice(0) ckpt_path=a.ckpt",
        "-m sweep=null ckpt_path=a.ckpt",
        "-m hydra/launcher=joblib ckpt_path=a.ckpt seed=3",
        "-m ckpt_path=a.ckpt,b.ckpt",
        "-m ckpt_path=a.ckpt \"data.root='a,b'\"",
        "-m ckpt_path=a.ckpt seed=(",
    ],
)
def test_one_run_a_checkpoint_is_not(command):
    refuse_shared_checkpoint(shlex.split(command))


def test_the_hint_is_a_command_that_hydra_understands():
    args = ["--config-dir", "my conf", "-m", "seed=0,1", "hydra.searchpath=[file://more]"]
    folder = "/runs/(it's)/seed=0,x=1"
    hint = how_to_go_on(f"{folder}/last.ckpt", args=args, own=["seed=0"], folder=folder)
    flag, place, *overrides = shlex.split(hint.partition(", with ")[2])
    assert (flag, place) == ("--config-dir", "my conf")
    parsed = OverridesParser.create().parse_overrides(overrides)
    values = {each.key_or_group: each.value() for each in parsed}
    assert values == {
        "seed": 0,
        "hydra.searchpath": ["file://more"],
        "hydra.run.dir": folder,
        "ckpt_path": f"{folder}/last.ckpt",
    }
