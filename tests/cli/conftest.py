import copy
import csv
import json
import logging
import os
import random
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from filelock import FileLock
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from one_line import assert_one_line
from sklearn.datasets import load_digits

from sztrain.cli import evaluate_main, train_main
from sztrain.cli.messages import one_line
from sztrain.cli.resolvers import register_resolvers
from sztrain.errors import InputError
from sztrain.models import zoo

ROOT = Path(__file__).parents[2]

# Some seconds of training: enough for a net that classifies, and for an attack that must work. Its
# best epoch is not its last, so that what is judged of the two can be told apart.
SMALL = (
    "trainer=cpu model.width=8 data.limit_train=600 data.batch_size=32 trainer.max_epochs=6 "
    "callbacks.gauge.num_samples=32 callbacks.gauge.every_n_epochs=1 "
    "callbacks.gauge.attack.num_steps=6 method.attack.num_steps=2 seed=1 "
    "verdict.num_steps=15 verdict.num_queries=20 verdict.last_samples=40 "
    "callbacks.gauge.probe.num_steps=10 callbacks.gauge.probe.num_queries=10"
)

# As little as can be called a run.
TINY = (
    "trainer=cpu model.width=2 data.limit_train=64 trainer.max_epochs=1 "
    "callbacks.gauge.num_samples=4 callbacks.gauge.attack.num_steps=1 "
    "verdict.num_steps=10 verdict.num_queries=10 verdict.num_samples=4 "
    "callbacks.gauge.probe.num_steps=1 callbacks.gauge.probe.num_queries=1"
)


# Taken now: for the tests themselves the environment is emptied.
FOLDERS = {
    name: (Path(os.environ[name]).absolute() if name in os.environ else None, needed)
    for name, needed in (
        ("SZTRAIN_WEIGHTS_DIR", "mnist_smallcnn_robust_ddn.pth"),
        ("SZTRAIN_DATA_DIR", "MNIST/raw/t10k-images-idx3-ubyte"),
    )
}


@dataclass(frozen=True)
class Outcome:
    status: object
    out: str
    err: str

    @property
    def lines(self):
        return [line for line in (self.out + self.err).splitlines() if line.strip()]


@dataclass(frozen=True)
class TrainedRun:
    dir: Path
    value: float

    @property
    def best(self):
        return str(self.dir / "checkpoints" / "best.ckpt")

    @property
    def last(self):
        return str(self.dir / "checkpoints" / "last.ckpt")

    @property
    def summary(self):
        return json.loads((self.dir / "summary.json").read_text())


def clean_environment(home):
    """The machine's, without what would decide where data, weights and W&B's account are."""
    dropped = ("SZTRAIN_", "WANDB_", "PL_", "HYDRA_", "NETRC")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@cache
def digits_read_once():
    return load_digits()


def _offline(url):
    raise OSError("no network in a test")


@pytest.fixture
def undisturbed(tmp_path, tmp_path_factory, monkeypatch):
    """A program's start in this process: an empty folder, and nothing of it stays behind."""
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: copy.copy(digits_read_once()))
    monkeypatch.setattr(zoo, "download", _offline)
    environment = dict(os.environ)
    for key in set(environment) - set(clean_environment(tmp_path)):
        monkeypatch.delenv(key)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    # W&B makes it once a process, in whichever test is the first to ask it for anything.
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)
    loggers = [logging.getLogger(), logging.getLogger("pytorch_lightning")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    random_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    interrupt = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, interrupt)
    torch.set_rng_state(random_state[0])
    np.random.set_state(random_state[1])
    random.setstate(random_state[2])
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    for key in set(os.environ) - set(environment):
        del os.environ[key]


@pytest.fixture
def call(undisturbed, capfd, monkeypatch):
    """Run a command line such as ``train model=wrn28`` in this process."""

    def run(command):
        name, *args = shlex.split(command)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *args])
        GlobalHydra.instance().clear()
        capfd.readouterr()
        status = 0
        try:
            {"train": train_main, "evaluate": evaluate_main}[name]()
        except SystemExit as stop:
            status = stop.code
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture
def without_pictures(monkeypatch):
    """They take most of the time."""
    for name in ("draw_examples", "draw_pictures"):
        monkeypatch.setattr(f"sztrain.cli.report.{name}", lambda *arguments: [])


@pytest.fixture
def start(tmp_path):
    """Start a command line such as ``train model=wrn28`` as a process of its own."""
    started = []

    def popen(command, **environment):
        name, *args = shlex.split(command)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / f"{name}.py"), *args],
            cwd=tmp_path,
            env=clean_environment(tmp_path) | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # its own group, which is what Ctrl-C reaches
            # A suite that a script started in the background would hand down a deaf ear.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        process.communicate()


@pytest.fixture
def spawn(start):
    """Run a command line as a process of its own until it ends."""

    def run(command, **environment):
        process = start(command, **environment)
        out, err = process.communicate(timeout=200)
        return Outcome(process.returncode, out, err)

    return run


def composed_config(root, *overrides):
    """The config of a command line, without Hydra's own part."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_module("sztrain.configs", version_base="1.3"):
        return compose(root, ["output_dir=out", *overrides])


@pytest.fixture
def composed():
    return composed_config


@pytest.fixture(scope="session")
def composed_once():
    return cache(composed_config)


@pytest.fixture
def refused(call, tmp_path):
    """One line that says what is wrong, and nothing begun."""

    def check(command, *fragments):
        outcome = call(command)
        assert outcome.status == 2, outcome
        assert_one_line(outcome, fragments)
        assert not list(tmp_path.rglob(".hydra"))
        assert not list(tmp_path.rglob("wandb"))
        assert not list(tmp_path.rglob("*.ckpt"))
        return outcome.err.strip()

    return check


@pytest.fixture
def refused_config(composed_once, undisturbed, tmp_path, capfd):
    """Refused with a message of one line, before a word is printed or a file is written.

    A command line composes its config twice, which takes longer than all else; so what a task
    refuses is shown to it in a config that was composed once.
    """

    def check(task, command, change, *fragments):
        cfg = copy.deepcopy(composed_once(*command.split()))
        OmegaConf.set_struct(cfg, False)
        cfg.merge_with_dotlist(change.split())
        with pytest.raises(InputError) as caught:
            task(cfg)
        message = one_line(caught.value)
        for fragment in fragments:
            assert fragment in message
        assert "\n" not in message
        assert capfd.readouterr() == ("", "")
        assert [path.name for path in tmp_path.iterdir()] == ["home"]

    return check


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """One finished run of the defaults on the digits, W&B included, only shorter.

    Where several processes share the tests, the first of them that asks for it makes it.
    """
    shared = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if shared else base) / "trained"
    value = folder.with_suffix(".value")
    with FileLock(folder.with_suffix(".lock")):
        if not value.exists():
            value.write_text(repr(train_shortly(folder)))
    return TrainedRun(folder, float(value.read_text()))


def train_shortly(folder):
    from sztrain.cli.train import train

    before = dict(os.environ)
    os.environ["WANDB_MODE"] = "offline"
    try:
        return train(composed_config("train", *SMALL.split(), f"output_dir={folder}"))
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def table():
    def read(path):
        with Path(path).open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture
def small():
    return SMALL


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture
def paper_nets(undisturbed, monkeypatch):
    for name, (folder, needed) in FOLDERS.items():
        if folder is None or not (folder / needed).is_file():
            pytest.skip(f"{name} is not set to a folder with {needed}")
        monkeypatch.setenv(name, str(folder))
