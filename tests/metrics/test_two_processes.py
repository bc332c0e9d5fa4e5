"""Two processes that each see a part of the samples report the figures of all of them.

One is that of the test, the other runs this very file as a program: under pytest's importlib mode,
a spawned process could not import the test module to find its function.
"""

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from sztrain.metrics import RobustnessCurve, l0_metrics

PARTS = [[0.0, 1.0, 1.0, 2.0, 2.0], [8.0, float("inf"), 3.0]]


def report(rank: int, folder: str) -> dict[str, float]:
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", meeting, timedelta(seconds=120), rank=rank, world_size=2)
    try:
        metrics = l0_metrics(12, budgets=[2])
        metrics.add_metrics({"curve": RobustnessCurve(12)})
        for batch in (PARTS[rank][:1], PARTS[rank][1:]):
            metrics.update(torch.tensor(batch))
        return {key: value.tolist() for key, value in metrics.compute().items()}
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_report_the_figures_of_all_samples(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    other = subprocess.Popen(
        [sys.executable, __file__, "1", str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        figures_here = report(0, str(tmp_path))
        output = other.communicate(timeout=120)[0]
    finally:
        other.kill()
    assert other.returncode == 0
    for figures in (figures_here, json.loads(output.splitlines()[-1])):
        # Sorted: 0 1 1 2 2 3 8 inf. A mean of the medians of the parts, 1 and 8, would be 4.5.
        assert figures["median_l0"] == 2
        assert figures["mean_l0"] == pytest.approx(17 / 7)
        assert figures["asr_inf"] == pytest.approx(7 / 8)
        assert figures["asr@2"] == pytest.approx(5 / 8)
        assert figures["robust_acc@2"] == pytest.approx(3 / 8)
        curve = [7, 5, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1]
        assert figures["curve"] == pytest.approx([count / 8 for count in curve])


if __name__ == "__main__":
    print(json.dumps(report(int(sys.argv[1]), sys.argv[2])))  # noqa: T201
