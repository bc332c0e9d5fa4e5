"""What a config names and cannot be had is told in one line, wherever it fails."""

import sys

import pytest

from sztrain.cli.build import make
from sztrain.cli.targets import find_target
from sztrain.errors import InputError


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Modules of a person's own, right and wrong ones."""
    texts = {
        "own_good": "class Attack:\n    def call(self): ...\n",
        "own_needy": "import own_nowhere\n",
        "own_failing": "1 / 0\n",
        "own_unread": "def f(:\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in texts:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("own_gone.Attack", "no module own_gone, in which Attack was looked for; PYTHONPATH has"),
        ("own_gone.sub.Attack", "no module own_gone, in which sub.Attack was looked for;"),
        (
            "own_good.Attacks",
            r"no Attacks in the module own_good \(.*own_good.py\); did you mean Att",
        ),
        ("own_good.Attack.deep", "there is no deep in own_good.Attack"),
        ("own_needy.Attack", r"own_needy cannot be imported \(.*No module named 'own_nowhere'\)"),
        ("own_failing.Attack", r"cannot be imported \(ZeroDivisionError: division by zero\); HYD"),
        ("own_unread.Attack", r"cannot be imported \(SyntaxError: .*line 1\)"),
        ("sztrain.attackz.SigmaZero", "no attackz in the module sztrain .*did you mean attacks"),
        ("Attack", "expected `_target_` to be a module and a name in it, .*, got 'Attack'"),
        (".Attack", "got '.Attack'"),
    ],
)
def test_what_cannot_be_found_is_told(modules, target, told):
    with pytest.raises(InputError, match=told) as caught:
        make({"_target_": "builtins.dict", "inner": [{"_target_": target}]}, "attack")
    assert str(caught.value).startswith("attack.inner[0]: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "target", ["own_good.Attack.call", "builtins.dict", "xml.dom.minidom.Attr"]
)
def test_what_can_be_found_is(modules, target):
    assert callable(find_target(target))


@pytest.mark.parametrize("place", ["method.attack", "callbacks.gauge.probe"])
def test_nothing_is_said_beside_the_line(refused, modules, place):
    """The configs' own options for an attack there are looked at before it is made."""
    refused(f"train {place}._target_=own_gone.Attack", f"{place}: there is no module own_gone")
