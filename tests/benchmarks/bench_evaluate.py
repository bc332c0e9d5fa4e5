r"""What evaluating costs beyond the attack, and what a second process saves.

    python tests/benchmarks/bench_evaluate.py --net M1 --num-samples 512 --num-steps 100

sztrain has to be importable (installed, or ``PYTHONPATH=.``); M1 needs SZTRAIN_WEIGHTS_DIR and
SZTRAIN_DATA_DIR. One thread a process. Two parts, a line each:

- runner: wall time from the first batch to the finished records, over that of the attack's calls
  alone: clean predictions, counting, checksums, writing, the progress bar;
- processes: ``evaluate.py devices=2`` over ``devices=1``, whole processes in turns, and whether
  they leave the same records.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from torch.utils.data import Subset

from sztrain.attacks import SigmaZero
from sztrain.cli.findings import conclude
from sztrain.cli.jobs import Job, Selection, attack_share
from sztrain.cli.memory import keep_freed_memory
from sztrain.cli.team import gather_team
from sztrain.data import MNIST, Digits
from sztrain.models import describe_net, load_net

EVALUATE = Path(__file__).parents[2] / "evaluate.py"


def runner_seconds(
    net: str, num_samples: int, num_steps: int, batch_size: int
) -> tuple[float, float]:
    """Wall time of a whole job, and of the attack's calls in it."""
    data = {"mnist": MNIST, "digits": Digits}[describe_net(net)["data"]["name"]]()
    data.setup()
    job = Job(
        label=net,
        model=net,
        net_label=net,
        net=load_net(net),
        attack=SigmaZero(num_steps=num_steps),
        steps=num_steps,
        selection=Selection(data, Subset(data.part("test"), range(num_samples))),
        batch_size=batch_size,
        budgets=[],
        output_dir=Path(tempfile.mkdtemp()),
    )
    start = time.perf_counter()
    attack_share(job, gather_team(torch.device("cpu"), 1), "1/1")
    found = conclude(job)
    return time.perf_counter() - start, found.cost.seconds


def process_seconds(
    net: str, num_samples: int, num_steps: int, batch_size: int, devices: int
) -> tuple[float, bytes]:
    """Wall time of the command with ``devices`` processes, and the records it leaves."""
    folder = Path(tempfile.mkdtemp())
    command = [
        *(sys.executable, str(EVALUATE), f"net={net}", f"attack.num_steps={num_steps}"),
        *(f"num_samples={num_samples}", f"batch_size={batch_size}", "num_threads=1"),
        *("device=cpu", f"devices={devices}", f"hydra.run.dir={folder}"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, cwd=folder, capture_output=True)
    return time.perf_counter() - start, (folder / "records" / f"{net}.csv").read_bytes()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", default="M1")
    parser.add_argument("--num-samples", type=int, default=512)
    parser.add_argument("--num-steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    setting = (options.net, options.num_samples, options.num_steps, options.batch_size)

    runs = [runner_seconds(*setting) for _ in range(options.rounds)]
    for wall, attack in runs:
        print(f"runner: {wall:.2f} s, attack alone {attack:.2f} s, {wall / attack - 1:+.2%}")
    print(f"runner: median overhead {median(wall / attack - 1 for wall, attack in runs):+.2%}")

    ratios = []
    for _ in range(options.rounds):
        (one, records), (two, others) = (process_seconds(*setting, devices) for devices in (1, 2))
        ratios.append(two / one)
        same = "same" if records == others else "DIFFERENT"
        print(f"processes: one {one:.2f} s, two {two:.2f} s, {two / one:.2f} x, {same} records")
    print(f"processes: median {median(ratios):.2f} x")


if __name__ == "__main__":
    main()
