import json
import math
from urllib.parse import urlparse

import pytest
import sklearn.datasets
import torch
import wandb
from one_line import assert_one_line
from pace import slow_after
from PIL import Image

from sztrain.cli.checks import check_wandb
from sztrain.cli.evaluate import evaluate
from sztrain.cli.train import train
from sztrain.evaluation.wandb_account import has_wandb_key

# A run that would start at once if nothing were wrong with it.
TRAIN = "train trainer=cpu data.limit_train=8 trainer.max_epochs=1"

# What Hydra or the program's start refuses, tried with the whole command line ...
COMMANDS = {
    "model=wrn29": ("there is no model=wrn29", "digits_cnn, preact_resnet18", "did you mean wrn28"),
    "method=sparse_att": ("there is no method=sparse_att", "did you mean sparse_at?"),
    "modl=wrn28": ("there is no option modl", "did you mean model?"),
    "method=trades method.beat=3": ("there is no option method.beat; did you mean method.beta?",),
    "attack.num_steps=3": ("there is no option attack.num_steps", "did you mean method.attack.num"),
    "nonsense=1": (
        "there is no option nonsense",
        "known here: ",
        "trainer, seed, num_threads, start_from, ckpt_path",
    ),
    "data.nonsense_xyz=1": ("known here: ", "batch_size"),
    "a=b=c": ("cannot read a=b=c", "expected key=value"),
    "scheduler=null": ("a group cannot be null", "~scheduler"),
    "method.budget=3 method=3": ("cannot read method=3: a group has options by name",),
    "verdict=null": ("`verdict` to have options, got null; callbacks.gauge.verdict=null trains",),
    "data.recipe=null": ("`data.recipe` to be a group of options, ", "got a single value"),
    "trainer.max_epochs=": ("`trainer.max_epochs` to be a whole number or null, got ''",),
    "trainer.max_epochs=abc": ("`trainer.max_epochs` to be a whole number or null, got 'abc'",),
    "monitor=${nowhere}": ("nowhere",),
    "model=timm": ("model.name has no default", "add model.name=..."),
    "model=timm model.name=resnet81": ("resnet81", "did you mean resnet18"),
    "data=mnist data.root=nowhere": ("MNIST is not on disk", "nowhere", "data.download=true"),
    "data=cifar10": ("CIFAR-10 is not on disk", "data.download=true", "SZTRAIN_DATA_DIR"),
    "data=folder data.root=nowhere": ("there is no folder nowhere",),
    "method.attack.num_steps=0": ("method.attack: expected `num_steps` to be at least 1, got 0",),
    "callbacks.gauge.attack.targeted=true": ("`attack` to be untargeted",),
    "method.attack.members.sigma_zero.targeted=true": ("`members.sigma_zero` to be untargeted",),
    "num_threads=9999": ("`num_threads` to be at most 1024, got 9999",),
    "callbacks.gauge.budgets=[2,65]": ("callbacks.gauge.budgets` to be at most 64", "got 65"),
}


@pytest.mark.parametrize("wrong", slow_after(8, COMMANDS))
def test_a_wrong_command_is_refused_in_one_line(refused, wrong):
    refused(f"{TRAIN} '{wrong}'" if "$" in wrong else f"{TRAIN} {wrong}", *COMMANDS[wrong])


# ... and what is wrong in a config that can be composed.
TRAININGS = {
    # names
    "model._target_=torch.nn.Linear": ("sztrain.models.<name>", "got torch.nn.Linear"),
    "method._target_=sztrain.training.SparseTA": ("method: ", "SparseTA"),
    # types
    "method.attack.num_steps=abc": ("`method.attack.num_steps` to be a whole number, got 'abc'",),
    "method.attack.num_steps=1.5": ("a whole number, got 1.5",),
    "method.attack.num_steps=true": ("a whole number, got True",),
    "method.budget=2.5": ("`method.budget` to be a whole number or null, got 2.5",),
    "verdict.num_steps=abc": ("callbacks.gauge.verdict.num_steps", "got 'abc'"),
    "callbacks.gauge.budgets=3": ("`callbacks.gauge.budgets` to be a list", "got 3"),
    "optimizer.lr=abc": ("`optimizer.lr` to be a number", "got 'abc'"),
    "optimizer.lr=null": ("`optimizer.lr` to be a number", "got None"),
    "data.augment=maybe": ("`data.augment` to be true or false, got 'maybe'",),
    "data.batch_size=many": ("`data.batch_size` to be a whole number, got 'many'",),
    "seed=abc": ("`seed` to be a whole number, got 'abc'",),
    "output_dir=null": ("`output_dir` to be text, got None",),
    "ckpt_path=5": ("`ckpt_path` to be text or null, got 5",),
    "start_from=5": ("`start_from` to be text or null, got 5",),
    # ranges
    "monitor=test/clean_acc": ("`monitor` to be a figure of the validation part",),
    "monitor=val/robust_acc_worst@5": (
        "callbacks.best.monitor: nothing logs val/robust_acc_worst@5",
        "expected one of ",
        " val/robust_acc_worst@4",
    ),
    "callbacks.best.monitor=robust_acc_worst@4": (
        "callbacks.best.monitor: nothing logs robust_acc_worst@4",
        " val/robust_acc_worst@4, or one of the training's, such as train/loss",
    ),
    "verdict.last_samples=-1": ("`verdict.last_samples` to be at least 0, got -1",),
    "method.noise=-1": ("method: expected `noise` to be at least 0, got -1",),
    "callbacks.guard.action=panic": ("`callbacks.guard.action` to be warn or stop or more_steps",),
    "seed=-1": ("`seed` to be at least 0, got -1",),
    "seed=5000000000": ("`seed` to be at most 4294967295",),
    "method.budget=0": ("method: expected `budget` to be at least 1, got 0",),
    "method.budget=65": ("`budget` to be at most 64, the features of a sample, got 65",),
    "method.attack.budget=4": ("method.attack.budget has no effect", "use method.budget=4"),
    "callbacks.gauge.budgets=[0]": ("`budgets` to be at least 1, got 0",),
    "callbacks.gauge.attack.budget=4": ("callbacks.gauge: expected `attack` to have no budget",),
    "callbacks.gauge.verdict.budget=4": ("callbacks.gauge: expected `verdict` to have no budget",),
    "callbacks.gauge.attack.num_steps=0": ("callbacks.gauge.attack: expected `num_steps` to be",),
    "verdict.num_steps=0": ("callbacks.gauge.verdict: expected `num_steps` to be at least 1",),
    "verdict.num_steps=9": (
        "callbacks.gauge.verdict: expected `num_steps` to be at least 10 without",
    ),
    "verdict.num_queries=9": (
        "callbacks.gauge.verdict: expected `num_queries` to be at least 10 w",
    ),
    "callbacks.gauge.probe.budget=65": ("callbacks.gauge.probe.budget",),
    "callbacks.gauge.probe.unit=pixels": ("expected `probe` to count features",),
    "verdict=null": ("`verdict` to have options, got null; callbacks.gauge.verdict=null trains",),
    "verdict.num_samples=0": ("`verdict_samples` to be at least 1, got 0",),
    "callbacks.gauge.num_samples=0": ("`num_samples` to be at least 1, got 0",),
    "callbacks.gauge.batch_size=0": ("`batch_size` to be at least 1, got 0",),
    "callbacks.gauge.every_n_epochs=0": ("`every_n_epochs` to be at least 1, got 0",),
    "data.batch_size=0": ("data: expected `batch_size` to be at least 1, got 0",),
    "data.val_fraction=1": ("`val_fraction`", "got 1"),
    "data.limit_train=0": ("`limit_train` to be at least 1, got 0",),
    "method.unbroken=never": ("`method.unbroken` to be best or last, got 'never'",),
    "method.clean_share=2": ("`clean_share` to be in [0, 1], got 2",),
    "method.attack.unit=voxels": ("`method.attack.unit` to be features or pixels, got 'voxels'",),
    "model.width=0": ("`width` to be at least 1, got 0",),
    "model.std=[0.5]": ("`mean` and `std` together", "`std` without `mean`"),
    "scheduler.warmup=2": ("scheduler: expected `warmup` to be in [0, 1), got 2",),
    # what other libraries refuse
    "optimizer.lr=-1": ("optimizer: Invalid learning rate: -1",),
    "optimizer.betas=[2,2]": ("optimizer: Invalid beta parameter",),
    "trainer.max_epochs=-5": ("trainer: ", "You passed in -5"),
    "trainer.accelerator=abacus": ("trainer: ", "abacus", "cpu"),
    "trainer.precision=abc": ("`trainer.precision` to be ", "bf16-mixed", "got 'abc'"),
    "callbacks.best.mode=best": ("callbacks.best: ", "best"),
    # what does not go together
    "data.num_classes=5": ("label 9", "num_classes=5", "0..4"),
    "model.num_classes=5": ("the net tells 5 classes apart, the data has 10",),
    "data.in_channels=3": ("in_channels=3",),
    "model.in_channels=3": ("shape (N, 3, H, W)", "got (2, 1, 8, 8)"),
    "start_from=nowhere.ckpt": ("there is no checkpoint nowhere.ckpt",),
    "start_from=digits_standart": ("a net's name (", "did you mean digits_standard"),
    "start_from=mnist_sparse_at": (
        "mnist_sparse_at holds the weights of another architecture",
        "; it needs model=small_cnn",
    ),
    "ckpt_path=nowhere.ckpt": ("there is no checkpoint nowhere.ckpt",),
    "logger.wandb.mode=sometimes": ("`logger.wandb.mode` to be one of online",),
    # what is none of what its group is made of
    "callbacks.ema.decay=0.998": (
        "expected `callbacks.ema` to be a callback of Lightning, got a dict; `_target_` has to",
    ),
    "callbacks.ema._target_=torch.nn.ReLU": (
        "expected `callbacks.ema` to be a callback of Lightning, got a ReLU",
    ),
    "callbacks.gauge.mean=[0.5,0.5,0.5]": (
        "callbacks.gauge: expected `mean` and `std` to have one number for each of 1 channels",
    ),
    "callbacks.gauge.box=[-1,0.5]": ("callbacks.gauge: expected inputs in [0, 1] once mean=None",),
    "callbacks.gauge=3": ("expected `callbacks.gauge` to be a group with a `_target_`, got 3",),
    "logger.mine.name=a": ("expected `logger.mine` to be a logger of Lightning, got a dict; `_",),
    "trainer.callbacks=[a]": ("trainer.callbacks has no effect: give them by the group",),
    "trainer.logger=true": ("trainer.logger has no effect: give them by the group logger",),
    "logger.csv=true": ("expected `logger.csv` to be a group with a `_target_`, got True",),
    "logger.wandb=false": ("expected `logger.wandb` to be a group with a `_target_`, got False",),
}


@pytest.mark.parametrize("wrong", TRAININGS)
def test_a_wrong_training_is_refused_before_it_begins(refused_config, wrong):
    refused_config(train, "train", wrong, *TRAININGS[wrong])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(refused, trained):
    refused(f"{TRAIN} trainer.accelerator=gpu", "trainer: ", "gpu")
    refused(f"evaluate net={trained.best} device=cuda", "a device this machine has, got cuda")


@pytest.mark.slow
def test_a_wrong_evaluation_command_is_refused_in_one_line(refused, trained, tmp_path):
    evaluate_it = f"evaluate net={trained.best}"
    refused(f"{evaluate_it} attack=sigma_one", "there is no attack=sigma_one", "did you mean")
    refused(f"{evaluate_it} attak.unit=pixels", "no option attak.unit", "mean attack.unit?")
    refused(f"{evaluate_it} attack.budget=65", "`attack.budget` to be at most 64", "got 65")
    refused(f"{evaluate_it} attack=attack_mix", "got AttackMix, made to train")
    refused(f"{evaluate_it} attack.lean=true", "`attack` to judge, got lean=True")
    refused(f"{evaluate_it} data=mnist", "MNIST is not on disk")
    twice = "digits_standard,digits_standard"
    refused(f"evaluate net=[{twice}]", "name no net twice, got digits_standard, digits_standard")
    refused("evaluate net=mnist_trades data=digits", "; mnist_trades is made for data=mnist")
    assert not list(tmp_path.rglob("results.csv"))


EVALUATIONS = {
    "attack.num_steps=abc": ("`attack.num_steps` to be a whole number, got 'abc'",),
    "attack.num_steps=0": ("attack: expected `num_steps` to be at least 1, got 0",),
    "attack.budget=0": ("attack: expected `budget` to be at least 1, got 0",),
    "attack.budget=65": ("`attack.budget` to be at most 64, the features of a sample, got 65",),
    "budgets=[65]": ("`budgets` to be at most 64, the features of a sample, got 65",),
    "budgets=[0]": ("`budgets` to be at least 1, got 0",),
    "budgets=[2.5]": ("`budgets` to be a whole number, got 2.5",),
    "num_samples=360": ("`num_samples` to be at most 359, the size of the test split, got 360",),
    "split=val num_samples=150": ("`num_samples` to be at most 144, the size of the val split",),
    "num_samples=0": ("`num_samples` to be at least 1, got 0",),
    "first_sample=359": ("`first_sample` to be below 359, the size of the test split, got 359",),
    "first_sample=-1": ("`first_sample` to be at least 0, got -1",),
    "first_sample=300 num_samples=60": (
        "`num_samples` to be at most 59, the size of the test split from sample 300 on, got 60",
    ),
    "num_samples=some": ("`num_samples` to be a whole number or null, got 'some'",),
    "batch_size=0": ("`batch_size` to be at least 1, got 0",),
    "batch_size=abc": ("`batch_size` to be a whole number or null, got 'abc'",),
    "split=tset": ("`split` to be one of train, val, test, got tset",),
    "device=abacus": ("a device this machine has, got abacus",),
    "device=meta": ("a device this machine has, got meta",),
    "device=null": ("`device` to be text, got None",),
    "num_samples=true": ("`num_samples` to be a whole number or null, got True",),
    "channels_last=maybe": ("`channels_last` to be true or false, got 'maybe'",),
    "budgets=null": ("`budgets` to be a list or group, got None",),
    "budgets=5": ("`budgets` to be a list or group, got 5",),
    "budgets=[true]": ("`budgets` to be a whole number, got True",),
    "output_dir=null": ("`output_dir` to be text, got None",),
    "data.split_seed=99999999999999999999": ("`split_seed` to be at most 9223372036854775807",),
    "data.split_seed=-1": ("`split_seed` to be at least 0, got -1",),
    "data.num_classes=5": ("label 9", "num_classes=5"),
}


@pytest.mark.parametrize("wrong", EVALUATIONS)
def test_a_wrong_evaluation_is_refused_before_it_begins(refused_config, trained, wrong):
    refused_config(evaluate, "evaluate", f"net={trained.best} {wrong}", *EVALUATIONS[wrong])


NETS = {
    "M3": ("got M3", "M1, M2, C1", ".ckpt or .safetensors"),
    "digits_sparse": ("got digits_sparse", "did you mean digits_sparse_at"),
    "nowhere.ckpt": ("there is no checkpoint nowhere.ckpt",),
    "nowhere.safetensors": ("there is no file nowhere.safetensors",),
    "[]": ("expected net to name at least one net",),
    "null": ("expected net to name at least one net",),
    "M1": ("MNIST is not on disk",),
    "M1 data=digits": ("the weights of M1 cannot be downloaded", "SZTRAIN_WEIGHTS_DIR"),
    "M1,M2 -m": ("a sweep over nets needs data=...", "net=[a,b]"),
}


@pytest.mark.parametrize("net", NETS)
def test_a_net_that_is_not_there_is_refused(refused, net):
    refused(f"evaluate net={net}", *NETS[net])


def test_nets_of_several_data_sets_are_refused(refused, trained):
    refused(f"evaluate net=[M1,{trained.best}]", "M1 (mnist)", f"{trained.best} (digits)", "apart")


# --- checkpoints ---


@pytest.fixture
def spoilt(trained, tmp_path_factory):
    """A file with some bytes, or a copy of the run's last checkpoint that a function changed."""

    def write(change):
        path = tmp_path_factory.mktemp("spoilt") / "last.ckpt"
        if isinstance(change, bytes):
            path.write_bytes(change)
            return path
        checkpoint = torch.load(trained.last, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, path)
        return path

    return write


@pytest.fixture
def refused_by_both(refused):
    """Neither goes on from such a checkpoint nor evaluates it."""

    def check(path, fragment):
        refused(f"{TRAIN} model.width=8 ckpt_path={path}", str(path), fragment)
        refused(f"evaluate net={path}", str(path), fragment)

    return check


def weights_of(checkpoint):
    return {key: w for key, w in checkpoint["state_dict"].items() if key.startswith("net.")}


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused(spoilt, refused_by_both, trained):
    content = (trained.dir / "checkpoints" / "last.ckpt").read_bytes()
    half, zeros_at_the_end = content[: len(content) // 2], content[:-1000] + bytes(1000)
    for damaged in (half, zeros_at_the_end, b"", b"net: digits_cnn\n"):
        refused_by_both(spoilt(damaged), "is damaged")


def change_spec(checkpoint):
    checkpoint["hyper_parameters"]["net"]["width"] = 4


def forget_hyper_parameters(checkpoint):
    del checkpoint["hyper_parameters"]


def name_another_target(checkpoint):
    checkpoint["hyper_parameters"]["net"] = {"_target_": "os.system", "command": "true"}


def lose_a_layer(checkpoint):
    del checkpoint["state_dict"][next(iter(weights_of(checkpoint)))]


def diverge(checkpoint):
    next(iter(weights_of(checkpoint).values())).view(-1)[0] = math.nan


def overflow(checkpoint):
    for weights in weights_of(checkpoint).values():
        if weights.is_floating_point():
            weights.fill_(1e30)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (change_spec, "another architecture"),
        (forget_hyper_parameters, "has no sztrain hyper-parameters"),
        (name_another_target, "got os.system"),
        (lose_a_layer, "1 keys missing"),
        (diverge, "NaN or infinite in 1 of"),
        (overflow, "the net returns non-finite logits"),
    ],
)
def test_a_checkpoint_with_another_content_is_refused(spoilt, refused_by_both, change, fragment):
    refused_by_both(spoilt(change), fragment)


@pytest.mark.slow
def test_a_training_goes_on_with_the_same_net_and_optimizer_only(refused, trained):
    start = f"{TRAIN} ckpt_path={trained.last}"
    refused(f"{start} model.width=2", "shape (8, 1, 3, 3), expected (2, 1, 3, 3)")
    refused(f"{start} model=timm model.name=test_efficientnet", "another architecture")
    refused(f"{start} model.width=8 optimizer=sgd", trained.last, "another optimizer than SGD")


def test_a_checkpoint_without_optimizer_cannot_be_resumed(spoilt, refused):
    path = spoilt(lambda checkpoint: checkpoint.pop("optimizer_states"))
    refused(f"{TRAIN} model.width=8 ckpt_path={path}", "no state of an optimizer")


@pytest.mark.slow
def test_images_outside_the_unit_interval_are_refused(refused, trained, monkeypatch):
    digits = sklearn.datasets.load_digits()
    digits.images = digits.images * 2
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)
    fragments = ("[0, 1], got values from 0 to 2",)
    refused(TRAIN, *fragments)
    refused(f"evaluate net={trained.best}", *fragments)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_damaged_image_is_one_line_also_from_a_worker(refused, tmp_path):
    for place in (f"{part}/{name}" for part in ("train", "test") for name in "0123456789"):
        folder = tmp_path / "images" / place
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("L", (8, 8), 10 * number).save(folder / f"{number}.png")
    damaged = tmp_path / "images" / "test" / "7" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:45])
    options = "data=folder data.root=images data.image_size=8 data.in_channels=1 data.num_workers=1"
    refused(f"evaluate net=digits_standard {options}", "7/1.png cannot be read as an image")


# --- W&B ---


@pytest.mark.slow
@pytest.mark.parametrize("way", ["WANDB_MODE", "logger.wandb.mode"])
def test_wandb_online_without_a_key_is_refused(refused, monkeypatch, way):
    if way == "WANDB_MODE":
        monkeypatch.setenv("WANDB_MODE", "online")
        command = TRAIN
    else:
        command = f"{TRAIN} logger.wandb.mode=online"
    refused(command, "W&B is online", "wandb login", "WANDB_API_KEY", "WANDB_MODE=offline")


def test_wandb_asks_for_a_key_only_where_it_is_online(undisturbed, monkeypatch, tmp_path):
    def loggers(mode):
        return {"wandb": {"mode": mode}}

    for fine in (None, {}, {"wandb": None}, loggers("offline"), loggers("disabled")):
        check_wandb(fine)
    for remote in (None, "online", "run", "shared"):
        with pytest.raises(ValueError, match="has no key"):
            check_wandb(loggers(remote))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    check_wandb(loggers("online"))
    monkeypatch.delenv("WANDB_API_KEY")
    for name in (".netrc", "_netrc"):
        keys = write_key(tmp_path / "home" / name, "api.wandb.ai")
        check_wandb(loggers("online"))
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
        with pytest.raises(ValueError, match="has no key"):
            check_wandb(loggers("online"))
        monkeypatch.delenv("WANDB_BASE_URL")
        keys.unlink()


def write_key(path, host):
    path.write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
    path.chmod(0o600)
    return path


def test_a_key_is_found_for_the_server_that_this_wandb_asks(undisturbed, monkeypatch, tmp_path):
    """The default has changed with wandb's versions, and a settings file may name another."""
    wandb.teardown()  # what it has read before, in another test, are other settings
    write_key(tmp_path / "home" / ".netrc", urlparse(wandb.setup().settings.base_url).hostname)
    assert has_wandb_key()
    settings = tmp_path / "home" / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://wandb.example.org\n")
    wandb.teardown()
    assert not has_wandb_key()
    write_key(tmp_path / "home" / ".netrc", "wandb.example.org")
    assert has_wandb_key()
    wandb.teardown()


# --- the same, seen from outside ---


@pytest.mark.parametrize(
    ("command", "fragment"),
    [
        ("train modl=wrn28", "did you mean model?"),
        ("evaluate attack=sigma_one", "did you mean sigma_zero or sigma_zero_sgd?"),
    ],
)
def test_the_programs_exit_with_status_2_and_one_line(spawn, tmp_path, command, fragment):
    outcome = spawn(command)
    assert outcome.status == 2
    assert_one_line(outcome, [fragment])
    assert not list(tmp_path.rglob("wandb"))


@pytest.mark.slow
def test_an_unknown_monitor_ends_in_one_line_as_well(call):
    """Lightning alone knows what a method logs, and only after an epoch."""
    outcome = call(f"{TRAIN} logger=none monitor=val/nothing callbacks.gauge.num_samples=2")
    assert outcome.status == 2
    assert outcome.err.startswith("sztrain: error: ")
    assert "val/nothing" in outcome.err
    assert "val/mean_l0" in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    "bug",
    [
        ValueError("not what a person did"),
        json.JSONDecodeError("not what a person did", "", 0),
        UnicodeDecodeError("utf-8", b"", 0, 1, "not what a person did"),
    ],
)
def test_a_bug_is_not_disguised_as_bad_input(call, monkeypatch, bug):
    def buggy(self):
        raise bug

    monkeypatch.setattr("sztrain.data.Digits.load", buggy)
    with pytest.raises(type(bug), match="not what a person did"):
        call(TRAIN)


OWN_ATTACKS = {
    "nowhere": ("_target_: nowhere.Mine\n", "nowhere"),
    "function": ("_target_: sztrain.attacks.sigma_zero.cosine_annealing\neta: 1\nstep: 1\n", ""),
    "none": ("num_steps: 5\n", "attack"),
    "mix": (
        "_target_: sztrain.attacks.AttackMix\nnum_steps: 9\nunit: features\n",
        "to be one that judges",
    ),
    "targeted": (
        "_target_: sztrain.attacks.SigmaZero\ntargeted: true\nnum_steps: 9\nunit: features\n",
        "to be untargeted",
    ),
}


@pytest.mark.parametrize("name", OWN_ATTACKS)
@pytest.mark.parametrize(
    "command",
    [
        "evaluate net=digits_standard num_samples=2 attack={}",
        "evaluate suite=quick suite.models=[digits_standard] suite.attacks=[{}]",
    ],
    ids=["alone", "suite"],
)
def test_an_attack_of_ones_own_that_is_none_is_refused(refused, tmp_path, name, command):
    text, told = OWN_ATTACKS[name]
    folder = tmp_path / "conf" / "attack"
    folder.mkdir(parents=True)
    (folder / f"{name}.yaml").write_text(text)
    refused(f"{command.format(name)} --config-dir conf", told)


def test_a_folder_that_was_there_before_stays_where_its_run_is_refused(call, tmp_path):
    (tmp_path / "mine").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    for place in ("mine", ".", "new"):
        assert call(f"evaluate attack.num_steps=0 hydra.run.dir={place}").status == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not any((tmp_path / "mine").iterdir())


def test_a_net_by_an_interpolation_is_refused(refused):
    refused("evaluate 'net=${oc.env:HOME}/x.ckpt'", "before Hydra has resolved it", "data=...")


def test_what_is_to_be_quoted_is_told_so(refused):
    refused("evaluate net=a=b.ckpt", """'net="a=b.ckpt"'""")


def test_a_config_of_ones_own_that_is_no_yaml_is_refused(refused, tmp_path):
    folder = tmp_path / "conf" / "attack"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("num_steps: [1,\n")
    refused("evaluate --config-dir conf attack=mine", "mine.yaml", "line 2")
