import json
import os
import re
import signal
import socket
import string
import subprocess
import sys
import warnings

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException, MissingConfigException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pace import slow_after

from sztrain.cli.arguments import check_arguments
from sztrain.cli.build import make, named, quieten
from sztrain.cli.checks import set_num_threads
from sztrain.cli.messages import one_line
from sztrain.cli.net_data import with_data_of_net
from sztrain.cli.resolvers import digest, gauge_key, register_resolvers, slug
from sztrain.errors import InputError, SztrainWarning
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.types import UNITS

ATTACK = "sztrain.attacks.SigmaZero"

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120)


# --- names of folders ---


@pytest.mark.slow
@given(st.lists(names, min_size=1, max_size=4))
def test_a_slug_is_one_plain_folder_name(nets):
    made = slug(nets)
    assert len(made) <= 80
    assert not set(made) & set(string.whitespace + "/\\:*?\"'<>|=,[]{}.")


def test_a_slug_keeps_what_a_person_recognises():
    assert slug("M1") == "M1"
    assert slug(["digits_standard", "digits_sparse_at"]) == "digits_standard-digits_sparse_at"
    assert slug("outputs/train/2026-01-02/03-04-05/checkpoints/best.ckpt") == "best"
    assert slug(OmegaConf.create(["M1", "a/b.safetensors"])) == "M1-b"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(values, values)
def test_a_digest_tells_parameters_apart(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) == same
    assert digest(one, other) == digest(one, other)
    assert len(digest(one)) == 8


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest(OmegaConf.create({"b": 2, "a": 1}))
    assert digest([1, 2]) != digest([2, 1])


def test_resolvers_can_be_registered_again():
    register_resolvers()
    register_resolvers()
    cfg = OmegaConf.create({"unit": "pixels", "key": "${sztrain.gauge_key:${unit},24}"})
    assert cfg.key == gauge_key("pixels", 24) == "val/robust_acc_worst_px@24"


@pytest.mark.parametrize("unit", UNITS)
def test_checkpoints_are_chosen_by_keys_that_the_gauge_logs(unit):
    keys = GaugeKeys(unit=unit, budgets=(), probe_budgets=(24,))
    assert [gauge_key(unit, 24)] == keys.worst_accs
    assert gauge_key(unit, None) == keys.mean_l0


# --- the data of a net ---


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("--config-dir conf", ""),
        ("--config-dir=conf", ""),
        ("-cd conf", ""),
        ("-m", ""),
        ("--cfg job --config-dir conf", ""),
        ("", "--config-dir conf"),
        ("", "-m"),
        ("--info config", "--resolve"),
    ],
)
def test_a_net_brings_its_data_whatever_flags_stand_beside_it(before, behind):
    given = [*before.split(), "net=M1", "num_samples=3", *behind.split()]
    completed = [*before.split(), "net=M1", "num_samples=3", "data=mnist", *behind.split()]
    assert with_data_of_net(given) == completed
    args, unknown = get_args_parser().parse_known_args(completed)
    assert args.overrides == ["net=M1", "num_samples=3", "data=mnist"]
    assert unknown == []


# --- threads ---


def test_a_run_that_leaves_them_open_takes_as_many_as_torch(monkeypatch):
    """In a sweep as well, where the run before it took one."""
    before = torch.get_num_threads()
    monkeypatch.setattr("sztrain.cli.checks._NUM_THREADS", 3)
    try:
        set_num_threads(1)
        assert torch.get_num_threads() == 1
        set_num_threads(None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# --- one line out of any error ---


def test_a_sweeper_that_is_missing_can_be_installed():
    error = MissingConfigException("missing", "hydra/sweeper/optuna", ["basic"])
    assert "pip install -c constraints.txt -e '.[sweep]'" in one_line(error)


def test_an_input_error_deep_in_the_chain_says_it_best():
    error = InstantiationException("Error in call\nfull_key: a.b")
    error.__cause__ = InputError("expected `x` to be 1,\n got 2")
    assert one_line(error) == "expected `x` to be 1, got 2"


def test_a_full_stop_is_left_out_and_what_stands_for_a_value_is_not():
    assert one_line(InputError("no such net.\n\nGive net=...")) == "no such net; Give net=..."


def test_what_our_own_code_says_of_a_download_comes_before_its_cause(monkeypatch, tmp_path):
    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    node = {
        "_target_": "sztrain.models.robustbench_net",
        "name": "Addepalli2022Efficient_RN18",
        "dataset": "cifar10",
    }
    with pytest.raises(InputError, match=r"model: the weights of .* put them at .*RN18\.pt"):
        make(node, "model")


def test_our_own_warnings_are_one_line_of_their_own(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    quieten()
    shown = warnings.formatwarning(SztrainWarning("few samples"), SztrainWarning, "a/b.py", 3)
    assert shown == "sztrain: warning: few samples\n"
    assert "a/b.py:3" in warnings.formatwarning("old", DeprecationWarning, "a/b.py", 3)


@pytest.mark.parametrize(
    ("args", "meant"),
    slow_after(
        3,
        [
            (
                ["callbacks.gauge=null", "callbacks.gauge.seed=8"],
                "callbacks.gauge.seed; another part of the command takes it",
            ),
            (["model=wrn28", "model.wdth=4"], "did you mean model.width?"),
            (["method=trades", "method.bta=4"], "did you mean method.beta?"),
            (["data=folder", "data.img_size=8"], "did you mean data.image_size?"),
            (["modl=wrn28", "data=mnist"], "did you mean model?"),
            (["optimiser.lr=1"], "did you mean optimizer.lr?"),
            (["num_steps=1"], "method.attack.num_steps or callbacks.gauge.attack.num_steps"),
            (["trainr.max_epochs=1"], "did you mean trainer.max_epochs?"),
            (["zzz.yyy=1"], "known here: optimizer, scheduler, data"),
            (["trainer.zzz=1"], "known here: _target_, default_root_dir, max_epochs"),
        ],
    ),
)
def test_a_misspelt_key_is_told_what_it_may_have_meant(call, args, meant):
    """The groups of the command count: its net has other keys than the default net."""
    outcome = call(" ".join(["train", *args]))
    assert outcome.status == 2
    assert meant in outcome.err
    assert "+" not in outcome.err  # Hydra's advice, which would silence the error


def test_a_constructor_that_fails_is_named_by_its_key():
    node = {"_target_": "builtins.dict", "attack": {"_target_": ATTACK, "num_steps": 0}}
    with pytest.raises(InputError, match=r"^gauge\.attack: expected `num_steps` to be at least 1"):
        make(node, "gauge")
    with pytest.raises(InputError, match=r"^optimizer: bad$"), named("optimizer"):
        raise ValueError("bad")
    with pytest.raises(ZeroDivisionError), named("optimizer"):
        raise ZeroDivisionError


# --- types ---


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("num_steps", "ten", "a whole number"),
        ("num_steps", 10.0, "a whole number"),
        ("num_steps", True, "a whole number"),
        ("num_steps", None, "a whole number"),
        ("num_steps", [1], "a whole number"),
        ("sigma", "small", "a number"),
        ("sigma", False, "a number"),
        ("budget", "no", "a whole number or null"),
        ("targeted", "yes", "true or false"),
        ("targeted", 1, "true or false"),
        ("unit", "voxels", "features or pixels"),
        ("unit", 1, "features or pixels"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(name, value, right):
    nested = {"some": [{"_target_": ATTACK, name: value}]}
    with pytest.raises(InputError) as caught:
        check_arguments(nested, "node")
    expected = f"expected `node.some[0].{name}` to be {right}, got {value!r}"
    assert str(caught.value) == expected


def test_a_number_that_may_be_a_tensor_is_asked_for_as_a_number():
    told = r"^expected `optimizer\.lr` to be a number, got 'fast'$"
    for value in ("fast", [0.1]):
        with pytest.raises(InputError, match=told.replace("'fast'", re.escape(repr(value)))):
            check_arguments({"_target_": "torch.optim.AdamW", "lr": value}, "optimizer")


def test_values_that_fit_and_what_is_not_annotated_pass():
    fine = {"num_steps": 3, "sigma": 1, "budget": None, "targeted": True, "unit": "pixels"}
    check_arguments({"_target_": ATTACK, **fine}, "attack")
    check_arguments({"_target_": "nowhere.at_all", "num_steps": "ten"}, "node")
    check_arguments({"_target_": "builtins.dict", "num_steps": "ten"}, "node")
    check_arguments({"_target_": "torch.optim.SGD", "lr": 1, "momentum": 0.9}, "optimizer")
    check_arguments({"_target_": "sztrain.data.Digits", "root": None, "val_fraction": 0.1}, "data")
    check_arguments(3, "node")


def test_arguments_that_a_class_hands_on_to_its_base_are_checked_as_well():
    for target, name, value in (
        ("sztrain.training.SparseAT", "budget", "8"),
        ("sztrain.training.SparseAT", "label_smoothing", None),
        ("sztrain.data.Digits", "batch_size", "8"),
    ):
        with pytest.raises(InputError, match=rf"`node\.{name}`"):
            check_arguments({"_target_": target, name: value}, "node")


# --- the programs as such ---


def test_help_lists_the_groups(call):
    outcome = call("train --help")
    assert outcome.status == 0
    for group in ("data", "model", "method", "trainer", "logger"):
        assert f"\n{group}: " in outcome.out
    assert "sztrain.attacks.SigmaZero" in outcome.out


def test_the_config_can_be_printed_without_a_run(call, tmp_path):
    outcome = call("train --cfg job model=wrn28")
    assert outcome.status == 0
    assert OmegaConf.create(outcome.out).data.name == "cifar10"
    assert not (tmp_path / "outputs").exists()


def test_an_interrupt_while_hydra_composes_leaves_cleanly(call, monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("sztrain.cli.entry._require_complete", interrupted)
    outcome = call("train")
    assert (outcome.status, outcome.err) == (130, "sztrain: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert not list(tmp_path.rglob(".hydra"))  # nothing has begun


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_trainings_of_one_second_have_folders_of_their_own(mode):
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_module("sztrain.configs", version_base="1.3"):
        folders = {compose("train", return_hydra_config=True).hydra[mode].dir for _ in range(3)}
    assert len(folders) == 3


def test_whoever_reads_no_further_sees_no_traceback():
    """As in `python train.py --help | head`."""
    code = "import sys; sys.argv[1:] = ['--help']; from sztrain.cli import train_main; train_main()"
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_bad_config_is_refused_before_torch_is_loaded():
    code = (
        "import sys; sys.argv[1:] = ['modl=1']\n"
        "from sztrain.cli import train_main\n"
        "try: train_main()\n"
        "except SystemExit as stop: sys.exit(0 if stop.code == 2 and 'torch' not in sys.modules "
        "else 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
