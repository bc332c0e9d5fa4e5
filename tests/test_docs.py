"""What the documentation says is so: its programs run, and its links lead somewhere."""

import csv
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from sztrain.models import load_net

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
QUIET = (
    "limit_train_batches=2, limit_val_batches=1, logger=False, enable_checkpointing=False, "
    "enable_progress_bar=False, enable_model_summary=False"
)
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("**/*.md"))]


@pytest.mark.parametrize("page", ["attacks.md"])
def test_programs_run(page, capsys):
    programs = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    assert programs
    for program in programs:
        exec(compile(program, page, "exec"), {})
    assert "ACP" in capsys.readouterr().out


def program_below(page, heading):
    """The first Python program below a heading."""
    text = page.read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    return re.search(r"```python\n(.*?)```", text, re.S).group(1)


def test_a_net_of_ones_own_is_judged_as_the_readme_says():
    program = program_below(ROOT / "README.md", "### A net of your own")
    known = {
        "net": nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
        "loader": [(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]))],
    }
    exec(program.replace("1000", "10").replace("2000", "10"), known)
    robustness = known["robustness"]
    assert {"median_l0", "mean_l0", "robust_acc@24", "asr@24"} <= robustness.values.keys()
    assert robustness.curve.shape == (65,)


def test_a_training_from_python_leaves_a_checkpoint_that_can_be_judged(tmp_path, monkeypatch):
    """As docs/training.md has it, on smaller data and shorter."""
    monkeypatch.chdir(tmp_path)
    program = program_below(DOCS / "training.md", "## From Python")
    for old, new in {
        "MNIST": "Digits",
        "mnist": "digits",
        "small_cnn": "digits_cnn",
        "num_steps=20": "num_steps=2",
        "num_queries=300": "num_steps=2, num_queries=10",
        "max_epochs=100": f"max_epochs=1, {QUIET}",
    }.items():
        assert old in program
        program = program.replace(old, new)
    exec(program, {})
    (path,) = tmp_path.glob("checkpoints/*.ckpt")
    assert type(load_net(str(path))).__name__ == "DigitsCNN"


@pytest.mark.parametrize("path", sorted(DOCS.glob("results/*.csv")), ids=lambda path: path.stem)
def test_every_column_of_the_tables_is_explained(path):
    text = (DOCS / "results" / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (`.*?`) \|", text, re.M)
    names = [name for cell in told for name in re.findall(r"`([^`]+)`", cell)]
    patterns = [re.sub(r"<\w+>|\\\.\\\.\\\.", r"\\w+", re.escape(name)) for name in names]
    with path.open(encoding="utf-8") as file:
        for column in next(csv.reader(file)):
            assert any(re.fullmatch(pattern, column) for pattern in patterns), column


@pytest.mark.parametrize(
    "group",
    sorted(
        folder.name
        for folder in (ROOT / "configs").iterdir()
        if folder.is_dir()
        and folder.name not in ("__pycache__", "callbacks", "hydra", "experiment", "suite")
    ),
)
def test_the_readme_names_every_option_of_a_group(group):
    """Experiments and suites stand in tables and commands of their own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| [^|]*`{group}`[^|]*\| .*$", text, re.M)
    told = {name for word in re.findall(r"`([^`]+)`", line) for name in word.split()}
    variants = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
    assert {name for name in variants if not name.endswith("_mnist")} <= told


def links(page):
    """The files that a page leads to, and the headings in them."""
    found = re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for path, _, anchor in (link.partition("#") for link in found):
        yield (page.parent / path).resolve() if path else page, anchor


def anchors(page):
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target}#{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    reached, ahead = set(), {ROOT / "README.md"}
    while ahead:
        page = ahead.pop()
        reached.add(page)
        ahead |= {target for target, _ in links(page) if target.suffix == ".md"} - reached
    assert set(PAGES) <= reached
