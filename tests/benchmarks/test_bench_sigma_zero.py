"""The benchmark keeps running, and counts, compares and leaves out as it says."""

import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sztrain.models import zoo

CPU = torch.device("cpu")
DIGITS = ["--nets", "digits_standard", "--stopped-net", "digits_standard"]
TINY = [*DIGITS, "--rounds", "1", "--num-steps", "2", "--batch-sizes", "2,3", "--num-samples", "3"]


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).with_name("bench_sigma_zero.py")
    spec = importlib.util.spec_from_file_location("bench_sigma_zero", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_sigma_zero"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_sigma_zero"]


@pytest.fixture(autouse=True)
def _same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def has(package):
    return importlib.util.find_spec(package) is not None


def test_every_part_runs_and_is_written_down(bench, tmp_path, capsys):
    out = tmp_path / "timings.json"
    variants = ["--variants", "batch_size=whole,cuda_graph,autocast,channels_last"]
    others = ["--budget", "5", "--patience", "1,3", "--patience-num-steps", "20", "--no-memory"]
    bench.main([*TINY, *variants, *others, "--out", str(out)])
    report, printed = json.loads(out.read_text()), capsys.readouterr().out

    assert report["environment"]["torch"] == torch.__version__
    assert [record["batch_size"] for record in report["speed"]] == [2, 3]
    racers = ["bare", "sztrain", "adv-lib", "batch_size=whole", "autocast", "channels_last"]
    for record in report["speed"]:
        assert list(record["contenders"]) == [n for n in racers if n != "adv-lib" or has("adv_lib")]
        assert all(len(entry["seconds"]) == 1 for entry in record["contenders"].values())
    assert printed.count("left out: cuda_graph: ") == 1  # this is the CPU
    assert printed.count("left out: adv-lib: ") == (not has("adv_lib"))

    (stopped,) = report["budget"]
    assert (stopped["num_steps"], stopped["budget"], stopped["differing"]) == (2, 5, 0)
    assert [record["patience"] for record in report["patience"]] == [None, 1, 3]
    assert report["patience"][0]["queries"] == 2 * 20 + 2  # the last iterate, the verification
    for record in report["patience"][1:]:
        assert record["relative"] == record["queries"] / 42 < 1
    assert "memory" not in report
    tables = [block for block in printed.split("\n\n") if "|" in block]
    assert [block.split()[0] for block in tables] == ["speed", "budget", "patience"]
    for block in tables:
        assert len({len(line) for line in block.splitlines() if line.startswith("|")}) == 1


def test_contenders_take_turns_and_are_compared_within_a_round(bench, monkeypatch):
    clock, turns = iter([0.0, 1, 1, 3, 3, 5, 5, 15, 15, 19, 19, 20]), []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    calls = {name: lambda name=name: turns.append(name) for name in "AB"}
    results = bench.race(calls, 3, CPU)
    assert "".join(turns) == "ABABAB"
    assert results["A"]["seconds"] == [1, 2, 4]
    assert results["B"]["seconds"] == [2, 10, 1]
    assert results["B"]["ratios"] == [2, 5, 0.25]
    assert (results["B"]["median_seconds"], results["B"]["median_ratio"]) == (2, 2)


def test_bare_passes_are_one_forward_and_one_input_gradient_a_step(bench):
    net, passes = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), []
    net.register_forward_hook(lambda *_: passes.append("forward"))
    net.register_full_backward_hook(lambda *_: passes.append("backward"))
    case = bench.own_labels("linear", net, torch.rand(2, 1, 2, 2))
    passes.clear()
    bench.bare(case, 3)()
    assert passes == ["forward", "backward"] * 3
    assert net[1].weight.grad is None


@pytest.mark.parametrize(("success", "differing"), [([1, 1, 0], 0), ([1, 0, 0], 1), ([0, 1, 1], 2)])
def test_verdicts_that_differ_are_counted(bench, monkeypatch, success, differing):
    @dataclass
    class Attack:
        num_steps: int
        budget: int | None = None

        def __call__(self, net, inputs, labels):
            l0 = torch.tensor([0, 24, torch.inf])
            return SimpleNamespace(l0=l0, success=torch.tensor(success, dtype=torch.bool))

    monkeypatch.setattr(bench, "SigmaZero", Attack)
    (record,) = bench.budget_part(bench.parse(TINY))
    assert record["differing"] == differing


def test_l0_of_what_was_not_broken_is_infinite(bench):
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    inputs = torch.tensor([[[0.6, 0.4]], [[0.6, 0.4]], [[0.6, 0.4]]])
    case = bench.own_labels("identity", net, inputs)
    found = torch.tensor([[[0.0, 1.0]], [[0.6, 0.4]], [[0.6, 1.0]]])
    l0 = bench.reached_l0(case, found)
    assert l0.tolist() == [2, torch.inf, 1]
    assert bench.l0_summary(l0) == {"median_l0": 2, "mean_l0": 1.5, "broken": 2 / 3}


@pytest.mark.skipif(not has("adv_lib"), reason="adv-lib is not installed")
def test_the_peer_attacks_the_same_batch(bench):
    case = bench.load_case("digits_standard", 3, CPU)
    l0 = bench.reached_l0(case, bench.peer(case, 30)())
    assert ((l0 >= 1) & (l0 < 32)).all()


def test_a_contender_that_fails_is_left_out_with_the_reason(bench, monkeypatch):
    def fails(case, num_steps):
        raise torch.OutOfMemoryError("no memory\nand much more")

    monkeypatch.setitem(bench.CONTENDERS, "autocast", fails)
    record = bench.compare(bench.load_case("digits_standard", 2, CPU), ("bare", "autocast"), 1, 1)
    assert list(record["contenders"]) == ["bare"]
    assert record["left_out"] == {"autocast": "no memory"}


def test_missing_weights_cost_one_line(bench, monkeypatch, tmp_path, capsys):
    def offline(url):
        raise OSError("no network")

    monkeypatch.setattr(zoo, "download", offline)
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(tmp_path))
    nets = ["--nets", "M1,digits_standard", "--stopped-net", "M1", "--parts", "speed,budget"]
    bench.main([*TINY, *nets])
    printed = capsys.readouterr().out
    assert printed.count("the weights of M1 cannot be downloaded") == 2  # once in each part
    assert "| digits_standard |" in printed


@pytest.mark.slow
def test_memory_is_that_of_a_fresh_process(bench, monkeypatch):
    record = bench.in_a_child("sztrain", 1, 1)
    assert (record["name"], record["num_steps"], record["batch_size"]) == ("sztrain", 1, 32)
    assert 50 < record["before_mib"] <= record["peak_mib"]

    peaks = count(200, 50)
    monkeypatch.setattr(bench, "in_a_child", lambda *_: {"peak_mib": next(peaks)})
    records = list(bench.memory_part(bench.parse(["--memory-num-steps", "10,100,1000"])))
    assert [record["relative"] for record in records[:3]] == [1, 1.25, 1.5]


@pytest.mark.slow
def test_a_process_that_fails_says_why(bench):
    with pytest.raises(bench.InputError, match="expected `num_steps` to be at least 1, got 0"):
        bench.in_a_child("sztrain", 0, 1)


def test_what_is_infinite_is_null_in_the_file(bench, tmp_path):
    bench.save({"median_l0": float("inf"), "device": CPU}, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {"median_l0": None, "device": "cpu"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nets", "M1,M9"], "expected some of M1, .* got 'M9'"),
        (["--variants", "fast"], "expected some of batch_size=whole, .* got 'fast'"),
        (["--rounds", "0"], "expected whole numbers of at least 1, got '0'"),
        (["--batch-sizes", "8,x"], "expected whole numbers of at least 1, got 'x'"),
        (["--device", "abacus"], "argument --device: "),
        (["--out", "no/such/folder.json"], "No such file or directory"),
        (["--parts", "patience"], "--parts patience needs --patience"),
    ],
)
def test_bad_options_are_refused(bench, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        bench.parse(options)
    assert re.search(message, capsys.readouterr().err)
