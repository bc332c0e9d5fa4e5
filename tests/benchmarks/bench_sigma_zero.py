r"""What σ-zero costs: against the bare passes of the net, and against adv-lib's implementation.

    python tests/benchmarks/bench_sigma_zero.py --out cpu.json
    python tests/benchmarks/bench_sigma_zero.py --device cuda --nets M1,preact_resnet18,wrn28 \
        --variants compile,cuda_graph,autocast,channels_last --out gpu.json

sztrain has to be importable (installed, or ``PYTHONPATH=.``). M1 needs SZTRAIN_WEIGHTS_DIR and
SZTRAIN_DATA_DIR, the peer ``pip install --no-deps adv-lib==0.2.8``; what is missing is left out
with one line. The others (their weights random, but for digits_standard) get random images and
their own predictions as labels. Contenders take turns in every round, after one uncounted call of
each, which also says what l0 they reach. Four parts, a table each:

- speed: N steps against N forward passes with input gradient, the least an attack can cost;
- budget: the early stop at a budget against the full run, and whether the verdicts are the same;
- patience: queries and l0 with the values of ``--patience`` against none;
- memory: the peak at several N, on a CPU each in a process of its own.
"""

import argparse
import copy
import json
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import sztrain
from sztrain.attacks import SigmaZero
from sztrain.attacks.peers.via_adv_lib import load_adv_lib
from sztrain.data import MNIST
from sztrain.errors import InputError, first_line
from sztrain.losses import difference_of_logits
from sztrain.models import load_net, preact_resnet18, small_cnn, wrn28
from sztrain.norms import l0_norm

OTHER_NETS = {
    "preact_resnet18": (preact_resnet18, (3, 32, 32)),
    "wrn28": (wrn28, (3, 32, 32)),
    "small_cnn": (small_cnn, (1, 28, 28)),
    "digits_standard": (lambda _: load_net("digits_standard"), (1, 8, 8)),
}
Call = Callable[[], Any]
Record = dict[str, Any]

# ---- what is attacked ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Case:
    """A net in eval mode and a batch, on one device."""

    name: str
    net: nn.Module
    inputs: Tensor
    labels: Tensor

    def channels_last(self) -> "Case":
        layout = torch.channels_last
        net = copy.deepcopy(self.net).to(memory_format=layout)
        return replace(self, net=net, inputs=self.inputs.contiguous(memory_format=layout))

    def compiled(self) -> "Case":
        return replace(self, net=torch.compile(self.net))

    def summary(self, num_steps: int) -> Record:
        return {"net": self.name, "batch_size": len(self.inputs), "num_steps": num_steps}


def load_case(name: str, num_samples: int, device: torch.device) -> Case:
    """M1 with the first MNIST test images, or another net with images from a fixed seed."""
    if name != "M1":
        factory, shape = OTHER_NETS[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net, inputs = factory(10), torch.rand(num_samples, *shape)
        return own_labels(name, net.to(device), inputs.to(device))
    net, samples = load_net("M1").to(device), MNIST().part("test").samples
    if num_samples > len(samples.labels):
        raise InputError(f"MNIST has {len(samples.labels)} test images, asked for {num_samples}")
    inputs, labels = samples.read(torch.arange(num_samples)), samples.labels[:num_samples]
    return Case(name=name, net=net.eval(), inputs=inputs.to(device), labels=labels.to(device))


def own_labels(name: str, net: nn.Module, inputs: Tensor) -> Case:
    with torch.no_grad():
        return Case(name=name, net=net, inputs=inputs, labels=net.eval()(inputs).argmax(dim=1))


def memory_case(device: torch.device) -> Case:
    """M1, else small_cnn, on random images: reading a data set would be part of the peak."""
    case = load_case("small_cnn", 32, device)
    try:
        return own_labels("M1", load_net("M1").to(device), case.inputs)
    except InputError:
        return case


# ---- who attacks: case, N -> what is timed, which returns adv_inputs ----------------------------


def bare(case: Case, num_steps: int) -> Call:
    def passes() -> Tensor:
        inputs = case.inputs.clone().requires_grad_()
        for _ in range(num_steps):
            margins = difference_of_logits(case.net(inputs), case.labels)
            torch.autograd.grad(margins.sum(), inputs)
        return case.inputs

    return passes


def ours(case: Case, num_steps: int, **options: Any) -> Call:
    attack = SigmaZero(num_steps=num_steps, **options)
    return lambda: attack(case.net, case.inputs, case.labels).adv_inputs


def peer(case: Case, num_steps: int) -> Call:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sigma_zero = load_adv_lib().sigma_zero
    return partial(sigma_zero, case.net, case.inputs, case.labels, num_steps=num_steps)


CONTENDERS: dict[str, Callable[[Case, int], Call]] = {
    "bare": bare,
    "sztrain": ours,
    "adv-lib": peer,
    "batch_size=whole": lambda case, num_steps: ours(case, num_steps, batch_size=len(case.inputs)),
    "compile": lambda case, num_steps: ours(case.compiled(), num_steps),
    "cuda_graph": partial(ours, cuda_graph=True),
    "autocast": partial(ours, autocast=True),
    "channels_last": lambda case, num_steps: ours(case.channels_last(), num_steps),
}
ALWAYS = ("bare", "sztrain", "adv-lib")

# ---- measuring ----------------------------------------------------------------------------------


def timed(call: Call, device: torch.device) -> tuple[float, Any]:
    """Seconds of a call, and its answer."""
    if device.type != "cuda":
        begin = time.perf_counter()
        answer = call()
        return time.perf_counter() - begin, answer
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    answer = call()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000, answer


def race(calls: dict[str, Call], rounds: int, device: torch.device) -> dict[str, Record]:
    """Seconds of every call, in turns, and ratios to the first one in the same round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(timed(call, device)[0])
    base = seconds[next(iter(calls))]
    records = {}
    for name, taken in seconds.items():
        ratios = [mine / its for mine, its in zip(taken, base, strict=True)]
        medians = {"median_seconds": median(taken), "median_ratio": median(ratios)}
        records[name] = {"seconds": taken, "ratios": ratios, **medians}
    return records


def l0_summary(l0: Tensor) -> Record:
    """Median over all samples, unbroken ones at inf; mean over the broken ones; share of these."""
    broken = l0[l0.isfinite()]
    mean = broken.mean().item() if len(broken) else float("inf")
    return {"median_l0": median(l0.tolist()), "mean_l0": mean, "broken": len(broken) / len(l0)}


def reached_l0(case: Case, adv_inputs: Tensor) -> Tensor:
    with torch.no_grad():
        resists = case.net(adv_inputs).argmax(dim=1) == case.labels
    return l0_norm(adv_inputs - case.inputs).masked_fill(resists, torch.inf)


# ---- the parts ----------------------------------------------------------------------------------


def compare(case: Case, names: Sequence[str], num_steps: int, rounds: int) -> Record:
    """Race contenders, the bare passes first; one that cannot run is left out with the reason."""
    torch.compiler.reset()  # else a limit of recompilations ends in eager runs
    calls: dict[str, Call] = {}
    first: dict[str, Record] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            call = CONTENDERS[name](case, num_steps)
            seconds, adv_inputs = timed(call, case.inputs.device)
        except (InputError, ImportError, RuntimeError) as error:  # no memory, no compiler, ...
            left_out[name] = first_line(error)
            continue
        l0 = {} if name == "bare" else l0_summary(reached_l0(case, adv_inputs))
        calls[name], first[name] = call, {"first_seconds": seconds, **l0}
    if "bare" in left_out:
        raise InputError(f"bare passes of {case.name} do not run: {left_out['bare']}")
    results = race(calls, rounds, case.inputs.device)
    contenders = {name: first[name] | results[name] for name in calls}
    return {**case.summary(num_steps), "contenders": contenders, "left_out": left_out}


def speed_part(args: argparse.Namespace) -> Iterator[Record]:
    for name in args.nets:
        sizes = args.batch_sizes or ([32, 128, 512] if name == "M1" else [32, 128])
        try:
            for size in sizes:
                case = load_case(name, size, args.device)
                yield compare(case, (*ALWAYS, *args.variants), args.num_steps, args.rounds)
        except InputError as error:
            yield {"net": name, "missing": f"{name}: {error}"}


def budget_part(args: argparse.Namespace) -> Iterator[Record]:
    """Time with a budget over that of the full run, and how many verdicts differ."""
    case = load_case(args.stopped_net, args.num_samples, args.device)
    batch, full = (case.net, case.inputs, case.labels), SigmaZero(num_steps=args.num_steps)
    early = replace(full, budget=args.budget)
    l0, success = full(*batch).l0, early(*batch).success
    calls = {"full": partial(full, *batch), "early": partial(early, *batch)}
    yield {
        **case.summary(args.num_steps),
        "budget": args.budget,
        "broken": success.float().mean().item(),
        "differing": int((success != (l0 <= args.budget)).sum()),
        **race(calls, args.rounds, args.device),
    }


def patience_part(args: argparse.Namespace) -> Iterator[Record]:
    """One run without patience, then one for each value."""
    case = load_case(args.stopped_net, args.num_samples, args.device)
    num_steps, all_queries = args.patience_num_steps, None
    for value in (None, *args.patience):
        attack = SigmaZero(num_steps=num_steps, patience=value)
        run = partial(attack, case.net, case.inputs, case.labels)
        seconds, result = timed(run, args.device)
        queries = (result.num_forwards + result.num_backwards).double().mean().item()
        all_queries = all_queries or queries
        costs = {"queries": queries, "relative": queries / all_queries, "seconds": seconds}
        yield {**case.summary(num_steps), "patience": value, **costs, **l0_summary(result.l0)}


def peak_memory(name: str, num_steps: int, device: torch.device) -> Record:
    """Peak before and after an attack: allocated on the device, or of this process."""
    case = memory_case(device)
    call = CONTENDERS[name](case, num_steps)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = peak(device)
    call()
    sizes = {"before_mib": before / 2**20, "peak_mib": peak(device) / 2**20}
    return {"name": name, **case.summary(num_steps), **sizes}


def peak(device: torch.device) -> int:
    """In bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if Path("/proc/self/status").exists():  # Linux, where ru_maxrss starts at the parent's peak
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    resource = import_module("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_a_child(name: str, num_steps: int, threads: int) -> Record:
    """`peak_memory` on the CPU, in a fresh process."""
    options = ["--threads", str(threads), "--memory-child", name, str(num_steps)]
    command = [sys.executable, str(Path(__file__).resolve()), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError((done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1])
    return json.loads(done.stdout)


def memory_part(args: argparse.Namespace) -> Iterator[Record]:
    for name in ("sztrain", "adv-lib"):
        first = None
        for num_steps in args.memory_num_steps:
            try:
                if args.device.type == "cuda":
                    record = peak_memory(name, num_steps, args.device)
                else:
                    record = in_a_child(name, num_steps, torch.get_num_threads())
            except (InputError, ImportError, RuntimeError) as error:
                yield {"name": name, "missing": f"{name}: {first_line(error)}"}
                break
            first = first or record["peak_mib"]
            yield record | {"relative": record["peak_mib"] / first}


# ---- the tables: heading -> what of a record ----------------------------------------------------

BATCH = {"net": "{net}", "batch": "{batch_size}", "N": "{num_steps}"}
REACHED = {"median l0": "{median_l0:g}", "mean l0": "{mean_l0:.2f}", "broken": "{broken:.1%}"}
BUDGET_COLUMNS = BATCH | {
    "budget": "{budget}",
    "full": "{full[median_seconds]:.3f} s",
    "early stop": "{early[median_seconds]:.3f} s",
    "ratio": "{early[median_ratio]:.3f}",
    "broken": "{broken:.1%}",
    "verdicts that differ": "{differing} of {batch_size}",
}
PATIENCE_COLUMNS = BATCH | {
    "patience": "{patience}",
    "queries": "{queries:.1f}",
    "of all": "{relative:.3f}",
    "time": "{seconds:.2f} s",
    **REACHED,
}
MEMORY_COLUMNS = BATCH | {
    "attack": "{name}",
    "before": "{before_mib:.1f} MiB",
    "peak": "{peak_mib:.1f} MiB",
    "to the first N": "{relative:.3f}",
}


def speed_columns(records: list[Record]) -> dict[str, str]:
    """One column a contender: median seconds, median ratio to the bare passes, median l0."""
    columns = dict(BATCH)
    for name in dict.fromkeys(name for record in records for name in record["contenders"]):
        entry = f"contenders[{name}]"
        columns[name] = f"{{{entry}[median_seconds]:.4f}} s {{{entry}[median_ratio]:.2f}}x"
        columns[name] += "" if name == "bare" else f" l0 {{{entry}[median_l0]:g}}"
    return columns


def table(records: list[Record], columns: dict[str, str]) -> str:
    rows = [list(columns), *([cell(t, record) for t in columns.values()] for record in records)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * (width - 1) + ":" for width in widths])
    padded = ([c.rjust(w) for c, w in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def cell(template: str, record: Record) -> str:
    try:
        return template.format_map(record)
    except KeyError:  # a contender that was left out here
        return "-"


PARTS = {
    "speed": (speed_part, speed_columns),
    "budget": (budget_part, lambda _: BUDGET_COLUMNS),
    "patience": (patience_part, lambda _: PATIENCE_COLUMNS),
    "memory": (memory_part, lambda _: MEMORY_COLUMNS),
}

# ---- the command line ---------------------------------------------------------------------------


def count(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"expected whole numbers of at least 1, got {text!r}")
    return int(text)


def counts(text: str) -> list[int]:
    return [count(item) for item in text.split(",")]


def some_of(choices: Sequence[str]) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        for name in set(text.split(",")).difference(choices):
            known = ", ".join(choices)
            raise argparse.ArgumentTypeError(f"expected some of {known}, got {name!r}")
        return text.split(",")

    return chosen


def a_device(text: str) -> torch.device:
    try:
        return torch.empty(0, device=text).device
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(first_line(error)) from error


def a_file(text: str) -> Path:
    try:
        Path(text).touch()  # now, not after an hour
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    nets, variants = ("M1", *OTHER_NETS), [name for name in CONTENDERS if name not in ALWAYS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", type=some_of(tuple(PARTS)), help=f"default: {','.join(PARTS)}")
    add("--nets", type=some_of(nets), default=["M1", "preact_resnet18"], help=", ".join(nets))
    add("--batch-sizes", type=counts, help="default: 32,128, for M1 512 too")
    add("--num-steps", type=count, default=100, help="N of speed and budget")
    add("--variants", type=some_of(variants), default=[], help=", ".join(variants))
    add("--device", type=a_device, default=torch.device("cpu"))
    add("--threads", type=count, help="of torch; default: 1 on the CPU")
    add("--rounds", type=count, default=5)
    add("--stopped-net", choices=nets, default="M1", help="of budget and patience")
    add("--num-samples", type=count, default=128, help="of budget and patience")
    add("--budget", type=count, default=24)
    add("--patience", type=counts, default=[], help="such as 100,200,400; default: skip the part")
    add("--patience-num-steps", type=count, default=1000, metavar="N")
    add("--memory-num-steps", type=counts, default=[10, 100, 1000], metavar="N,N,...")
    add("--no-memory", action="store_true", help="skip the part")
    add("--out", type=a_file, help="write everything, every timing too, to this JSON file")
    add("--memory-child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if "patience" in (args.parts or ()) and not args.patience:
        parser.error("--parts patience needs --patience")
    skipped = {"patience": not args.patience, "memory": args.no_memory}
    args.parts = [part for part in args.parts or PARTS if not skipped.get(part)]
    return args


def environment(device: torch.device) -> Record:
    """Versions and hardware."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    found = {dist.name: dist.version for dist in metadata.distributions(name="adv-lib")}
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sztrain": sztrain.__version__,
        "adv-lib": found.get("adv-lib"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def save(report: Record, path: Path | None) -> None:
    if path:
        text = json.dumps(report, default=str)
        finite = json.loads(text, parse_constant=lambda _: None)  # inf is no JSON
        path.write_text(json.dumps(finite, indent=1) + "\n", encoding="utf-8")


def show(
    part: str, records: list[Record], columns: Callable[[list[Record]], dict[str, str]]
) -> None:
    """Print the table of a part, then a line for everything that is not in it."""
    print(f"\n{part}")
    complete = [record for record in records if "missing" not in record]
    if complete:
        print(table(complete, columns(complete)))
    gone = [record["missing"] for record in records if "missing" in record]
    for record in complete:
        gone += [f"{name}: {reason}" for name, reason in record.get("left_out", {}).items()]
    for line in dict.fromkeys(gone):
        print(f"left out: {line}")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.threads or args.device.type == "cpu":
        torch.set_num_threads(args.threads or 1)
    if args.memory_child:
        name, num_steps = args.memory_child
        print(json.dumps(peak_memory(name, int(num_steps), args.device)))
        return
    report: Record = {"environment": environment(args.device), "options": vars(args)}
    print(", ".join(f"{key} {value}" for key, value in report["environment"].items()))
    for part in args.parts:
        run, columns = PARTS[part]
        records = report[part] = []
        try:
            for record in run(args):
                records.append(record)
                save(report, args.out)
        except InputError as error:
            records.append({"missing": first_line(error)})
        show(part, records, columns)
    save(report, args.out)
    print(f"\nwritten: {args.out}" if args.out else "\n--out FILE.json keeps every timing")


if __name__ == "__main__":
    main()
