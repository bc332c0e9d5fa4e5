"""Data sets, attacks and nets of one's own, word for word as the documentation has them."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from pace import slow_after

from sztrain.data import Digits
from sztrain.models import load_net

DOCS = Path(__file__).parents[2] / "docs"


class Section:
    """What stands below a heading: files to write, a program to run, commands to give."""

    def __init__(self, page, heading):
        text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
        text = text.partition("\n## ")[0]
        named = r"`([\w/]+\.(?:py|yaml))`[^`\n]*:\n\n```\w+\n(.*?)```\n"
        self.files = dict(re.findall(named, text, re.S))
        self.programs = re.findall(
            r"```python\n(.*?)```\n", re.sub(named, "", text, flags=re.S), re.S
        )
        blocks = "".join(re.findall(r"```bash\n(.*?)```\n", text, re.S)).replace("\\\n", " ")
        self.commands = [
            command.replace("python ", "").replace(".py ", " ", 1)
            for command in re.findall(r"^(?:PYTHONPATH=\. )?(python .*)$", blocks, re.M)
        ]


@pytest.fixture
def written(tmp_path, monkeypatch, undisturbed):
    """Write the files of a section; return its commands, and run its programs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def write(page, heading):
        section = Section(page, heading)
        for name, content in section.files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            modules.append(path.stem)
        for i, program in enumerate(section.programs):
            (tmp_path / f"program_{i}.py").write_text(program)
            runpy.run_path(str(tmp_path / f"program_{i}.py"))
        return section

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def succeed(outcome):
    assert outcome.status == 0, outcome.err


def test_a_data_set(call, written, tiny, without_pictures):
    train, evaluate = written("data.md", "A data set of your own").commands
    succeed(call(f"{train} {tiny} logger=none hydra.run.dir=out"))
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["num_samples"] == 4
    evaluate = evaluate.replace("outputs/.../", "out/checkpoints/")
    succeed(call(f"{evaluate} attack.num_steps=2 num_samples=4 hydra.run.dir=judged"))
    identity = json.loads(next(Path("judged").rglob("identity.json")).read_text())
    assert identity["dataset"] == "scans"


def test_a_data_set_from_python(written):
    section = written("data.md", "A data set of your own")
    known = {}
    exec(section.files["mydata.py"], known)
    data = known["Scans"](root=".", shift=1)
    assert [len(data.part(split)) for split in ("train", "val", "test")] == [1347, 150, 300]
    assert data.image_shape == (1, 8, 8)
    assert {int(label) for label in data.part("test").samples.labels} == set(range(10))


def attack_commands(program):
    commands = Section("attacks.md", "An attack of your own").commands
    return [command for command in commands if command.startswith(program)]


@pytest.mark.parametrize("command", slow_after(1, attack_commands("train")))
def test_an_attack_trains_and_gauges(call, written, tiny, command):
    written("attacks.md", "An attack of your own")
    if "greedy" in command and "probe" in command:
        tiny = tiny.replace("callbacks.gauge.probe.num_queries=1", "")
    succeed(call(f"{command} {tiny} method.attack.num_steps=2 logger=none hydra.run.dir=out"))
    attacks = json.loads(Path("out/summary.json").read_text())["attacks"]
    assert ("Greedy" in str(attacks)) == ("verdict" in command)
    if "own_mix" in command:
        assert OmegaConf.load("out/config.yaml").method.attack.weights.greedy == 0.5


@pytest.mark.parametrize("command", slow_after(1, attack_commands("evaluate")))
def test_an_attack_judges(call, written, command, without_pictures, table):
    written("attacks.md", "An attack of your own")
    less = "suite.num_samples=8 suite.num_steps=[10]" if "suite=" in command else "num_samples=8"
    succeed(call(f"{command} {less} hydra.run.dir=out"))
    rows = table("out/results.csv")
    assert "Greedy" in {row["attack"] for row in rows}
    if "suite=" in command:
        (worst,) = table("out/worst_case.csv")
        assert "greedy" in " ".join(worst)


def test_the_examples_attack_finds_few_changes(written):
    section = written("attacks.md", "An attack of your own")
    known = {"__name__": "myattacks"}
    exec(section.files["myattacks.py"], known)
    inputs, labels = next(iter(Digits(eval_batch_size=64).test_dataloader()))
    net = load_net("digits_standard")
    result = known["Greedy"]()(net, inputs, labels)
    assert result.success.all()
    assert result.l0.median() <= 3
    assert torch.equal(net(result.adv_inputs).argmax(1) != labels, result.success)
    few = known["Greedy"](budget=1)(net, inputs, labels)
    assert torch.equal(few.success, result.l0 <= 1)


HEADING = "A net with weights from elsewhere"


@pytest.mark.parametrize("command", slow_after(1, Section("nets.md", HEADING).commands))
def test_a_saved_net(call, written, tiny, without_pictures, command):
    written("nets.md", HEADING)
    less = "attack.num_steps=10 num_samples=4"
    if "autoattack" in command:
        less += " attack.num_queries=10"
    if command.startswith("train"):
        assert "model.width=16" in command
        less = f"{tiny.replace('model.width=2', '')} logger=none"
    succeed(call(f"{command} {less} hydra.run.dir=out"))


def test_an_architecture_of_ones_own(written, tmp_path, monkeypatch, capsys):
    (program,) = Section("nets.md", "An architecture of your own").programs
    quiet = (
        "limit_train_batches=2, limit_val_batches=1, logger=False, enable_checkpointing=False, "
        "enable_progress_bar=False, enable_model_summary=False"
    )
    for old, new in {
        "max_epochs=20": f"max_epochs=1, {quiet}",
        "=1000": "=10",
        "=2000": "=10",
        "(budgets=(4, 8))": "(budgets=(4, 8), num_samples=4)",
        "data.test_dataloader()": "[next(iter(data.test_dataloader()))]",
    }.items():
        assert old in program
        program = program.replace(old, new)
    exec(program, {})
    accuracy, median = map(float, capsys.readouterr().out.split()[-2:])
    assert 0 <= accuracy <= 1
    assert median >= 0
    assert (tmp_path / "mine.pt").is_file()


def test_the_commands_of_each_page_are_found():
    pages = {
        "data.md": ("A data set of your own", 2),
        "attacks.md": ("An attack of your own", 6),
        "nets.md": (HEADING, 3),
    }
    for page, (heading, count) in pages.items():
        commands = Section(page, heading).commands
        assert len(commands) == count
        assert {command.split()[0] for command in commands} == {"train", "evaluate"}
