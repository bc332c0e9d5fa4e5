import csv
import errno
import json
import os
import random
import socket
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

from sztrain.cli import jobs
from sztrain.cli.net_checks import check_parts
from sztrain.cli.net_data import with_data_of_net
from sztrain.data import MNIST, Digits, ImageFolders
from sztrain.errors import InputError
from sztrain.evaluation import recording
from sztrain.evaluation.published import find_row
from sztrain.evaluation.recording import record_attack

COMPARED = ["asr_10", "asr_50", "asr_inf", "median_l0", "time_s", "queries_k", "vram_gb"]

QUICK = "attack.num_steps=4 num_samples=40 hydra.run.dir=out"


def floats(rows, name):
    return np.array([float(row[name]) for row in rows])


def published_columns():
    with (files("sztrain.evaluation") / "published" / "minimum_norm.csv").open() as file:
        return next(csv.reader(file))


# --- what an evaluation leaves behind ---


def test_results_have_the_columns_of_the_paper_then_ours(call, trained, table):
    assert call(f"evaluate net={trained.best} {QUICK}").status == 0
    (row,) = table("out/results.csv")
    columns = list(row)
    paper = published_columns()
    assert columns[: len(paper)] == paper
    ours = columns[len(paper) :]
    assert ours[:4] == ["num_samples", "unit", "device", "batch_size"]
    beside = [f"{kind}_{name}" for name in COMPARED for kind in ("paper", "delta")]
    assert ours[-len(beside) :] == beside
    assert (row["num_samples"], row["unit"], row["batch_size"]) == ("40", "features", "128")
    assert (row["dataset"], row["attack"], row["steps"]) == ("digits", "sigma-zero", "4")
    assert (row["model"], row["table"]) == (trained.best, "")
    assert [row[name] for name in beside] == [""] * len(beside)


@pytest.mark.slow
def test_samples_begin_where_they_are_asked_to(call, trained, table, tmp_path):
    quick = "attack.num_steps=4 batch_size=8"
    later = "first_sample=25 num_samples=15 channels_last=true hydra.run.dir=later"
    assert call(f"evaluate net={trained.best} {quick} {later}").status == 0
    assert call(f"evaluate net={trained.best} {quick} num_samples=40 hydra.run.dir=all").status == 0
    parts = table("later/records/best.csv"), table("all/records/best.csv")[25:]
    (row,) = table("later/results.csv")
    assert (row["split"], row["first_sample"]) == ("test", "25")
    for key in ("index", "label", "clean_prediction", "l0", "success"):
        assert [row[key] for row in parts[0]] == [row[key] for row in parts[1]]
    assert "15 of digits from 25 on" in (tmp_path / "later/report.html").read_text()
    assert "from 0 on" not in (tmp_path / "all/report.html").read_text()


@pytest.mark.slow
def test_a_suite_takes_samples_from_where_it_is_told(call, table):
    suite = "evaluate suite=quick suite.models=[digits_standard] suite.num_steps=[4]"
    options = "suite.first_sample=350 suite.num_samples=9 channels_last=true"
    assert call(f"{suite} {options} hydra.run.dir=out").status == 0
    (row,) = table("out/results.csv")
    assert row["num_samples"] == "9"
    records = table("out/records/digits_standard-sigma_zero-4.csv")
    test = Digits().part("test")
    assert [int(record["index"]) for record in records] == list(range(350, 359))
    assert [int(record["label"]) for record in records] == [
        int(test[i][1]) for i in range(350, 359)
    ]


@pytest.mark.slow
def test_the_nets_are_attacked_in_the_layout_that_was_asked_for(
    call, trained, tmp_path, monkeypatch, without_pictures
):
    seen = []
    attack_batches = recording.attack_batches

    def watched(net, *arguments):
        convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels > 1]
        seen.append(convs[0].weight.is_contiguous(memory_format=torch.channels_last))
        return attack_batches(net, *arguments)

    monkeypatch.setattr(recording, "attack_batches", watched)
    for options in (
        f"net={trained.best} attack.num_steps=1 num_samples=2",
        "suite=quick suite.models=[digits_standard] suite.num_steps=[1] suite.num_samples=2 "
        "suite.loss_terms=false",
    ):
        for layout in ("false", "true"):
            out = f"out-{len(seen)}"
            command = f"evaluate {options} channels_last={layout} hydra.run.dir={out}"
            assert call(command).status == 0
            (identity,) = tmp_path.glob(f"{out}/batches/*/identity.json")
            assert json.loads(identity.read_text())["channels_last"] is (layout == "true")
    assert seen == [False, True, False, True]


def test_results_are_those_of_the_records(call, trained, table):
    assert call(f"evaluate net={trained.best} {QUICK}").status == 0
    (row,) = table("out/results.csv")
    records = table("out/records/best.csv")
    l0 = floats(records, "l0")
    assert [int(record["index"]) for record in records] == list(range(40))
    test = Digits().part("test")
    assert [int(record["label"]) for record in records] == [int(test[i][1]) for i in range(40)]
    assert float(row["asr_10"]) == pytest.approx(100 * (l0 <= 10).mean())
    assert float(row["asr_50"]) == pytest.approx(100 * (l0 <= 50).mean())
    assert float(row["asr_inf"]) == pytest.approx(100 * np.isfinite(l0).mean())
    assert float(row["median_l0"]) == np.mean(np.sort(l0)[19:21])
    assert float(row["mean_l0"]) == pytest.approx(l0[np.isfinite(l0)].mean())
    correct = [record["label"] == record["clean_prediction"] for record in records]
    assert 0 < np.mean(correct) < 1
    assert float(row["clean_acc"]) == pytest.approx(100 * np.mean(correct))
    assert [value == 0 for value in l0] == [not right for right in correct]
    queries = floats(records, "num_forwards") + floats(records, "num_backwards")
    assert float(row["queries_k"]) == pytest.approx(queries.mean() / 1000)
    assert float(row["time_s"]) > 0


@pytest.mark.slow
def test_pictures_and_the_whole_config_are_there(call, trained, tmp_path):
    outcome = call(f"evaluate net={trained.best} {QUICK} attack.unit=pixels")
    assert outcome.status == 0
    # The unit is a column of the tables that may be read alone; on the screen it is in the title.
    assert "| unit |" in (tmp_path / "out" / "results.md").read_text()
    assert '<th scope="col">unit</th>' in (tmp_path / "out" / "report.html").read_text()
    assert "unit" not in outcome.out.split()
    for picture in ("curves/pixels.png", "examples/best.png"):
        assert np.ptp(np.asarray(Image.open(tmp_path / "out" / picture).convert("L"))) > 100
    text = (tmp_path / "out" / "config.yaml").read_text()
    assert "${" not in text
    assert yaml.safe_load(text)["attack"]["num_steps"] == 4


def test_the_table_on_the_screen_names_judge_net_and_figures(call, trained, table):
    outcome = call(f"evaluate net={trained.best} {QUICK}")
    assert outcome.err == ""
    assert "sigma-zero only, N=4, features on 40 images of digits" in " ".join(outcome.out.split())
    (row,) = table("out/results.csv")
    assert f" {float(row['clean_acc']):.2f} ".replace(".00 ", " ") in outcome.out
    assert "…" not in outcome.out  # nothing is cut off


@pytest.mark.slow
def test_the_same_command_has_the_same_place_and_another_another(call, trained, monkeypatch):
    places = []
    monkeypatch.setattr("sztrain.cli.evaluate.evaluate", lambda cfg: places.append(cfg.output_dir))
    alone = f"evaluate net={trained.best}"
    others = "attack.num_steps=2", "split=val", "channels_last=true"
    suite = "evaluate suite=quick"
    for command in (
        *(alone, alone, *(f"{alone} {other}" for other in others)),
        *(suite, suite, f"{suite} suite.num_steps=[2]", f"{suite} channels_last=true"),
    ):
        assert call(command).status == 0
    assert places[0] == places[1]
    assert places[5] == places[6]
    assert len(set(places)) == 4 + 3


# --- stopped and started again ---

TIMED = {"time_s", "delta_time_s", "vram_gb", "delta_vram_gb", "resident_gb"}


@pytest.mark.slow
def test_an_evaluation_that_was_stopped_goes_on_to_the_same_end(
    call, trained, table, tmp_path, monkeypatch
):
    command = f"evaluate net={trained.best} attack.num_steps=4 num_samples=40 batch_size=8"
    assert call(f"{command} hydra.run.dir=undisturbed").status == 0

    def stopped(*args):
        for number, span in enumerate(record_attack(*args)):
            if number == 2:
                raise KeyboardInterrupt
            yield span

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "record_attack", stopped)
        assert call(f"{command} hydra.run.dir=out").status == 130
    batches = tmp_path / "out" / "batches" / "best"
    done = {path: path.stat().st_mtime_ns for path in batches.glob("*.csv")}
    assert len(done) == 3
    outcome = call(f"{command} hydra.run.dir=out")
    assert (outcome.status, "nothing was run anew" in outcome.out) == (0, False)
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())

    ends = [tmp_path / name for name in ("undisturbed", "out")]
    for name in ("records/best.csv", "examples/best.png", "curves/features.png"):
        first, second = ((end / name).read_bytes() for end in ends)
        assert first == second, name
    first, second = (table(end / "results.csv")[0] for end in ends)
    assert {key for key in first if first[key] != second[key]} <= TIMED


@pytest.mark.slow
def test_an_evaluation_killed_ten_times_ends_as_an_undisturbed_one(start, spawn, table, tmp_path):
    command = "evaluate net=digits_sparse_at attack.num_steps=400 num_samples=192 batch_size=8"
    assert spawn(f"{command} hydra.run.dir=undisturbed").status == 0
    batches, generator = tmp_path / "out" / "batches" / "digits_sparse_at", random.Random(0)
    num_kills = 0
    for target in range(2, 22, 2):  # batches on disk when the next kill comes
        process = start(f"{command} hydra.run.dir=out")
        while process.poll() is None and len(list(batches.glob("*.csv"))) < target:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.3))
        if process.poll() is None:
            process.kill()
            num_kills += 1
        process.communicate()
    assert num_kills >= 8
    assert spawn(f"{command} hydra.run.dir=out").status == 0
    ends = [tmp_path / name for name in ("undisturbed", "out")]
    for name in ("records/digits_sparse_at.csv", "examples/digits_sparse_at.png"):
        first, second = ((end / name).read_bytes() for end in ends)
        assert first == second, name
    first, second = (table(end / "results.csv")[0] for end in ends)
    assert {key for key in first if first[key] != second[key]} <= TIMED


@pytest.mark.slow
def test_two_processes_leave_the_records_of_one(call, spawn, trained, tmp_path):
    command = f"evaluate net={trained.best} attack.num_steps=4 num_samples=40 batch_size=8"
    command += " device=cpu"
    for run, name, devices in ((call, "one", 1), (spawn, "two", 2)):
        outcome = run(f"{command} devices={devices} hydra.run.dir={name}")
        assert outcome.status == 0, outcome.err
    for name in ("records/best.csv", "examples/best.png", "curves/features.png"):
        first, second = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert first == second, name


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["000000.csv", "000008.csv"])  # of the first and the second
def test_what_stops_one_of_two_processes_stops_both_without_a_traceback(
    spawn, trained, tmp_path, damaged
):
    command = f"evaluate net={trained.best} attack.num_steps=4 num_samples=16 batch_size=8"
    command += " device=cpu devices=2 hydra.run.dir=out"
    assert spawn(command).status == 0
    path = tmp_path / "out" / "batches" / "best" / damaged
    path.write_bytes(path.read_bytes()[:-9])
    outcome = spawn(command)
    assert outcome.status == 2
    assert f"{damaged} is damaged" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_two_machines_leave_the_records_of_one(start, trained, tmp_path):
    command = f"evaluate net={trained.best} attack.num_steps=4 num_samples=40 batch_size=8"
    assert start(f"{command} device=cpu hydra.run.dir=one").wait(120) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    machines = [
        start(f"{command} device=cpu num_nodes=2 hydra.run.dir=two", NODE_RANK=rank, **meeting)
        for rank in "01"
    ]
    assert [machine.wait(120) for machine in machines] == [0, 0]
    for name in ("records/best.csv", "curves/features.png"):
        first, second = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert first == second, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("num_nodes=0", "expected `num_nodes` to be at least 1, got 0"),
        ("devices=0", "expected `devices` to be at least 1, got 0"),
        ("devices=2 device=cpu:0", "expected devices=1 with device=cpu:0, got devices=2"),
    ],
)
def test_devices_that_make_no_sense_are_refused(call, trained, options, message):
    outcome = call(f"evaluate net={trained.best} {QUICK} {options}")
    assert outcome.status == 2
    assert message in outcome.err


@pytest.mark.slow
def test_a_folder_with_other_records_is_refused_and_kept(call, trained, tmp_path):
    command = f"evaluate net={trained.best} num_samples=8 hydra.run.dir=out"
    assert call(f"{command} attack.num_steps=2").status == 0
    ours = [path for path in (tmp_path / "out").rglob("*.*") if ".hydra" not in path.parts]
    kept = {path: path.read_bytes() for path in ours if path.is_file()}
    assert tmp_path / "out/config.yaml" in kept
    for options, message in {
        "attack.num_steps=3": "attack.num_steps is 2 there and 3 here",
        "attack.num_steps=2 channels_last=true": "channels_last is False there and True here",
    }.items():
        outcome = call(f"{command} {options}")
        assert outcome.status == 2
        assert message in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert {path: path.read_bytes() for path in kept} == kept
    outcome = call(f"{command} attack.num_steps=2")
    assert "1/1 best: nothing was run anew" in outcome.out


@pytest.mark.slow
def test_a_record_cut_in_half_is_refused(call, trained, tmp_path):
    command = f"evaluate net={trained.best} {QUICK}"
    assert call(command).status == 0
    path = tmp_path / "out/batches/best/000000.csv"
    path.write_bytes(path.read_bytes()[:-20])
    outcome = call(command)
    assert outcome.status == 2
    assert "000000.csv is damaged" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["000000.csv", "000000.json", "examples.safetensors"])
def test_what_is_damaged_can_be_removed_and_is_made_again(call, trained, tmp_path, name):
    command = f"evaluate net={trained.best} {QUICK} batch_size=20"
    assert call(command).status == 0
    kept = (tmp_path / "out" / "records" / "best.csv").read_bytes()
    path = tmp_path / "out" / "batches" / "best" / name
    path.write_bytes(path.read_bytes()[:-9])
    last = path.with_name("000020.csv")
    last.unlink()
    outcome = call(command)
    assert outcome.status == 2
    assert f"{name} is damaged" in outcome.err
    assert not last.is_file()  # noticed before the rest is attacked
    assert "remove it, and the same command makes it again" in outcome.err
    path.unlink()
    assert call(command).status == 0
    assert path.is_file()
    assert (tmp_path / "out" / "records" / "best.csv").read_bytes() == kept


def test_an_output_folder_that_cannot_be_made_is_refused(call, tmp_path):
    (tmp_path / "file").write_text("kept")
    outcome = call("evaluate num_samples=2 attack.num_steps=1 hydra.run.dir=file/out")
    assert outcome.status == 2
    assert "Not a directory; choose another folder" in outcome.err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a place where no folder can be made")
def test_a_folder_that_the_system_does_not_make_is_one_line(call):
    outcome = call("evaluate num_samples=2 attack.num_steps=1 hydra.run.dir=/proc/a/b")
    assert outcome.status == 2
    assert outcome.err.endswith("No such file or directory; choose another folder\n")


def test_a_folder_with_too_long_a_name_is_one_line(call, trained):
    outcome = call(f"evaluate net={trained.best} hydra.run.dir={'long' * 64}")
    assert outcome.status == 2
    assert "File name too long; choose another folder" in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.slow
def test_a_disk_that_is_full_when_the_pictures_are_drawn_is_one_line(call, tmp_path, monkeypatch):
    def full(self, path, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    command = "evaluate net=digits_standard num_samples=2 attack.num_steps=1 hydra.run.dir=out"
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", full)
        outcome = call(command)
    assert outcome.status == 2
    assert "digits_standard.png cannot be written (No space left on device)" in outcome.err
    assert call(command).status == 0


# --- which nets, on which data ---


@pytest.mark.slow
def test_several_nets_have_one_row_and_one_record_each(call, trained, table, tmp_path):
    nets = f"[{trained.best},{trained.last}]"
    assert call(f"evaluate net={nets} {QUICK}").status == 0
    assert [row["model"] for row in table("out/results.csv")] == [trained.best, trained.last]
    assert {path.name for path in (tmp_path / "out/records").iterdir()} == {"best.csv", "last.csv"}


@pytest.mark.slow
def test_nets_with_the_same_file_name_do_not_overwrite_each_other(call, trained, table, tmp_path):
    other = tmp_path / "other" / "best.ckpt"
    other.parent.mkdir()
    checkpoint = torch.load(trained.last, weights_only=True)
    for weights in checkpoint["state_dict"].values():
        weights.neg_()
    torch.save(checkpoint, other)
    assert call(f"evaluate net=[{trained.best},other/best.ckpt] {QUICK}").status == 0
    assert len(table("out/results.csv")) == 2
    for folder in ("records", "examples"):
        assert len(list((tmp_path / "out" / folder).iterdir())) == 2
    predictions = [
        [record["clean_prediction"] for record in table(path)]
        for path in (tmp_path / "out" / "records").iterdir()
    ]
    assert predictions[0] != predictions[1]


@pytest.fixture
def split_otherwise(trained, tmp_path):
    """A checkpoint of digits of which other images were cut off."""
    checkpoint = torch.load(trained.best, weights_only=True)
    checkpoint["hyper_parameters"]["data"] |= {"split_seed": 3, "val_fraction": 0.25}
    torch.save(checkpoint, tmp_path / "moved.ckpt")
    return "moved.ckpt"


@pytest.mark.usefixtures("split_otherwise")
def test_a_checkpoint_brings_the_options_of_its_data(call, table, tmp_path, without_pictures):
    def labels(*options):
        out = f"out{len(list(tmp_path.glob('out*')))}"
        command = f"evaluate net=moved.ckpt {QUICK} num_samples=12 split=val hydra.run.dir={out}"
        outcome = call(" ".join([command, *options]))
        assert outcome.status == 0
        assert "on 12 images of the val split of digits" in " ".join(outcome.out.split())
        (row,) = table(f"{out}/results.csv")
        assert (row["split"], row["first_sample"], row["num_steps"]) == ("val", "0", "4")
        return [int(record["label"]) for record in table(f"{out}/records/moved.csv")]

    def expected(**options):
        part = Digits(**options).part("val")
        return [int(part[index][1]) for index in range(12)]

    assert labels() == expected(split_seed=3, val_fraction=0.25)
    # What the command says wins; with the whole group it says all of it.
    told = ["data=digits", "data.split_seed=3", "data.val_fraction=0.25"]
    assert labels(*told) == expected(split_seed=3, val_fraction=0.25)
    assert expected() != expected(split_seed=3, val_fraction=0.25)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("net=moved.ckpt data=digits", "data.split_seed=3 (here 0)"),
        ("net=moved.ckpt data.split_seed=1", "data.split_seed=3 (here 1)"),
        (
            "net=moved.ckpt data=digits split=val",
            "data.split_seed=3 data.val_fraction=0.25 (here 0, 0.1)",
        ),
        ("net=[moved.ckpt,{best}]", "data.split_seed=3 (here 0)"),
        ("net=[moved.ckpt,{best}] data.split_seed=3", "data.split_seed=0 (here 3)"),
    ],
)
def test_no_net_is_judged_on_samples_that_it_may_have_learnt(
    call, trained, split_otherwise, options, told
):
    outcome = call(f"evaluate {options.format(best=trained.best)} {QUICK}")
    assert outcome.status == 2
    assert f"was trained with {told}, so that samples of this" in outcome.err


@pytest.mark.slow
def test_other_validation_samples_do_not_matter_to_the_test(call, trained, table, tmp_path):
    checkpoint = torch.load(trained.best, weights_only=True)
    checkpoint["hyper_parameters"]["data"]["val_fraction"] = 0.25
    torch.save(checkpoint, tmp_path / "more.ckpt")
    outcome = call(f"evaluate net=[more.ckpt,{trained.best}] {QUICK}")
    assert outcome.status == 0, outcome.err
    assert [row["model"] for row in table("out/results.csv")] == ["more.ckpt", str(trained.best)]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["start_from", "ckpt_path"])
@pytest.mark.parametrize("option", ["split_seed=3", "val_fraction=0.25"])
def test_a_training_does_not_begin_with_a_net_that_has_learnt_what_is_to_judge_it(
    call, trained, small, way, option
):
    command = f"train {small} {way}={trained.last} data.{option} hydra.run.dir=run"
    outcome = call(command)
    assert outcome.status == 2
    was = {
        "split_seed=3": "split_seed=0 (here 3)",
        "val_fraction=0.25": "val_fraction=0.1 (here 0.25)",
    }
    assert f"was trained with data.{was[option]}, so that" in outcome.err


def test_the_parts_of_another_data_set_or_one_with_its_own_test_part_do_not_matter(
    split_otherwise, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    check_parts("M1", Digits(split_seed=7), "val")
    check_parts(split_otherwise, MNIST(), "test")
    checkpoint = torch.load(split_otherwise, weights_only=True)
    checkpoint["hyper_parameters"]["data"]["name"] = "mnist"
    torch.save(checkpoint, "mnist.ckpt")
    check_parts("mnist.ckpt", MNIST(), "test")  # comes with a test part
    with pytest.raises(InputError, match="samples of this val part"):
        check_parts("mnist.ckpt", MNIST(), "val")
    checkpoint["hyper_parameters"]["data"] |= {"name": "folder", "test_fraction": 0.5}
    torch.save(checkpoint, "folder.ckpt")
    with pytest.raises(InputError, match=r"data\.test_fraction=0\.5 \(here 0, 0\.2\)"):
        check_parts("folder.ckpt", ImageFolders(root=str(tmp_path)), "test")
    (tmp_path / "train").mkdir()
    check_parts("folder.ckpt", ImageFolders(root=str(tmp_path)), "test")


def test_nets_of_data_in_several_forms_are_not_evaluated_together(trained, tmp_path):
    checkpoint = torch.load(trained.best, weights_only=True)
    names = []
    for root in ("a", "b"):
        checkpoint["hyper_parameters"]["data"] = {"name": "folder", "root": root}
        names.append(str(tmp_path / f"{root}.ckpt"))
        torch.save(checkpoint, names[-1])
    listed = ",".join(names)
    with pytest.raises(InputError, match=r"differ in data\.root: .*a\.ckpt \(a\), .*\(b\)"):
        with_data_of_net([f"net=[{listed}]"])
    told = [f"net=[{listed}]", "data.root=a"]
    assert with_data_of_net(told) == [told[0], told[1], "data=folder"]


def test_the_command_is_completed_by_what_the_net_says_of_its_data(trained, tmp_path):
    checkpoint = torch.load(trained.best, weights_only=True)
    folder = "a folder/größer"
    checkpoint["hyper_parameters"]["data"] = {"name": "folder", "root": folder, "image_size": 8}
    path = str(tmp_path / "net.ckpt")
    torch.save(checkpoint, path)
    completed = [f'++data.root="{folder}"', "++data.image_size=8", f"net={path}", "data=folder"]
    assert with_data_of_net([f"net={path}"]) == completed
    assert with_data_of_net([f"net={path}", "data.image_size=16"]) == [
        *(completed[0], completed[2], "data.image_size=16", completed[3]),
    ]
    for untouched in (["num_samples=3"], [f"net={path}", "data=cifar10"], ["net=null"], ["a=b=c"]):
        assert with_data_of_net(untouched) == untouched
    assert with_data_of_net(["-m", "net=[M1,M2]", "num_samples=3,4"])[-1] == "data=mnist"
    with pytest.raises(InputError, match=r"several data sets: M1 \(mnist\), .*\(folder\)"):
        with_data_of_net([f"net=[M1,{path}]"])


@pytest.mark.slow
def test_a_sweep_over_the_steps_of_one_net(call, trained, table):
    command = f"evaluate -m net={trained.best} attack.num_steps=1,3 num_samples=2"
    assert call(f"{command} hydra.sweep.dir=sweep").status == 0
    assert [table(f"sweep/{job}/results.csv")[0]["steps"] for job in (0, 1)] == ["1", "3"]


def test_the_shipped_nets_are_evaluated_by_default(call, table):
    assert call("evaluate attack.num_steps=5 num_samples=16 hydra.run.dir=out").status == 0
    rows = table("out/results.csv")
    assert [row["model"] for row in rows] == ["digits_standard", "digits_sparse_at"]
    assert all(float(row["clean_acc"]) > 80 for row in rows)


def test_a_net_of_the_paper_comes_with_its_data(call, paper_nets, table):
    assert call("evaluate net=M1 attack.num_steps=5 num_samples=16 hydra.run.dir=out").status == 0
    (row,) = table("out/results.csv")
    assert (row["dataset"], row["num_samples"], row["paper_median_l0"]) == ("mnist", "16", "")
    assert float(row["clean_acc"]) > 90


@pytest.mark.slow
def test_the_papers_figures_stand_beside_ours(call, paper_nets, table):
    command = "evaluate net=M1 attack.num_steps=100 num_samples=8 hydra.run.dir=out"
    assert call(command).status == 0
    (row,) = table("out/results.csv")
    printed = find_row("M1", "sigma-zero", 100)
    for name in COMPARED[:-1]:
        assert float(row[f"paper_{name}"]) == getattr(printed, name)
        delta = float(row[name]) - getattr(printed, name)
        assert float(row[f"delta_{name}"]) == pytest.approx(delta)
    assert row["table"] == printed.table


# --- errors, for those who want to see where they come from ---


@pytest.mark.parametrize("command", ["evaluate net=nowhere.ckpt", "train method.budget=65"])
def test_the_traceback_is_shown_on_demand(call, monkeypatch, command):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(InputError):
        call(command)
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_the_variable_that_hydra_reads_is_left_as_it_was(call):
    assert call("train method.budget=65").status == 2
    assert "HYDRA_FULL_ERROR" not in os.environ
