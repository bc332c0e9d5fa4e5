r"""What each adversary would show a net in training: how many changes, how large, where, how hard.

    python tests/benchmarks/bench_adversaries.py --net mnist_sparse_at M1 --data mnist --budget 48

sztrain has to be importable (installed, or ``PYTHONPATH=.``). Attacks validation images as a
training step would, twice with two seeds, and prints a line for each net and adversary:

- broken: share of the images that the example fools the net on, in percent;
- loss: mean cross-entropy of the net on the examples;
- changed: median number of values that differ from the image;
- size: mean size of a change;
- same places: what the changed places of both seeds share, of all that either changes, in percent.

An adversary that changes few values a little, or the same ones each time, leaves little to learn.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sztrain.attacks import BudgetedSigmaZero, SigmaZero, SparsePGD
from sztrain.data import MNIST, Digits
from sztrain.models import load_net
from sztrain.training.adversary import craft_examples
from sztrain.types import Attack

DATA = {"digits": Digits, "mnist": MNIST}
ADVERSARIES: dict[str, Attack] = {
    "sigma_zero": SigmaZero(recheck=False),
    "sigma_zero_sgd": SigmaZero(step_rule="sgd", recheck=False),
    "budgeted_sigma_zero": BudgetedSigmaZero(recheck=False),
    "sparse_pgd": SparsePGD(recheck=False),
    "sparse_pgd_projected": SparsePGD(projected=True, recheck=False),
}


def figures(net: nn.Module, attack: Attack, images: Tensor, labels: Tensor) -> dict[str, float]:
    """What the module's docstring lists, of one net and one adversary."""
    seeded = [replace(attack, seed=seed) if hasattr(attack, "seed") else attack for seed in (0, 1)]
    crafted = [craft_examples(each, net, images, labels) for each in seeded]
    changes = [(examples.inputs - images).flatten(1) for examples in crafted]
    places = [change != 0 for change in changes]
    with torch.no_grad():
        loss = F.cross_entropy(net(crafted[0].inputs), labels)
    counts = places[0].sum(dim=1)
    either = (places[0] | places[1]).sum(dim=1)
    shared = (places[0] & places[1]).sum(dim=1) / either
    return {
        "broken": 100 * float(crafted[0].broken.float().mean()),
        "loss": float(loss),
        "changed": float(counts.float().median()),
        "size": float(changes[0].abs().sum() / counts.sum()),
        "same places": 100 * float(shared[either > 0].mean()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", nargs="+", default=["digits_sparse_at"])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--budget", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--num-samples", type=int, default=256)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    part = DATA[options.data]().part("val")
    samples = [part[i] for i in range(min(options.num_samples, len(part)))]
    images = torch.stack([image for image, _ in samples])
    labels = torch.tensor([int(label) for _, label in samples])
    for name in options.net:
        net = load_net(name).eval()
        for adversary, attack in ADVERSARIES.items():
            limited = replace(attack, num_steps=options.num_steps, budget=options.budget)
            found = figures(net, limited, images, labels)
            listed = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
            print(f"{name}, {adversary}, N={options.num_steps}, budget {options.budget}: {listed}")


if __name__ == "__main__":
    main()
