r"""What an attack costs beyond the passes of the net that it needs.

    python tests/benchmarks/bench_attacks.py --net M1
    python tests/benchmarks/bench_attacks.py --net net.ckpt --attacks gse:400,lin_sparse:200

sztrain has to be importable. In every round the net is passed forwards alone, then forwards and
backwards to the input, always with the whole batch, then each attack has its turn while its passes
are counted at the net. Its time is divided by that of as many bare ones. An attack is an option of
``configs/attack`` with its number of steps.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from sztrain.cli.groups import build_attack
from sztrain.cli.memory import keep_freed_memory
from sztrain.data import MNIST, Digits, ImageFolders
from sztrain.evaluation.recording import counted_passes
from sztrain.losses import difference_of_logits
from sztrain.models import describe_net, load_net

DATA = {"mnist": MNIST, "digits": Digits, "folder": ImageFolders}
ATTACKS = "sigma_zero:100,budgeted_sigma_zero:100,gse_mnist:400,lin_sparse_mnist:200,aslo:100"
BARE_PASSES = 20


def first_images(net: str, num_samples: int) -> tuple[Tensor, Tensor]:
    """The first test images of a net's own data."""
    described = describe_net(net)["data"]
    part = DATA[described["name"]](root=described.get("root")).part("test")
    images, labels = zip(*(part[index] for index in range(num_samples)), strict=True)
    return torch.stack(images), torch.tensor([int(label) for label in labels])


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def forwards(net: nn.Module, inputs: Tensor) -> None:
    with torch.no_grad():
        for _ in range(BARE_PASSES):
            net(inputs)


def pairs(net: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    inputs = inputs.clone().requires_grad_()
    for _ in range(BARE_PASSES):
        torch.autograd.grad(difference_of_logits(net(inputs), labels).sum(), inputs)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="M1")
    parser.add_argument("--attacks", default=ATTACKS)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    net, (inputs, labels) = load_net(options.net), first_images(options.net, options.batch_size)
    chosen = [attack.split(":") for attack in options.attacks.split(",")]
    attacks = {name: build_attack(name, {"num_steps": int(steps)}) for name, steps in chosen}
    ratios: dict[str, list[float]] = {name: [] for name in attacks}
    passes = {}
    forwards(net, inputs)  # not counted
    for _ in range(options.rounds):
        samples = BARE_PASSES * len(inputs)
        forward = seconds(lambda: forwards(net, inputs)) / samples
        pair = seconds(lambda: pairs(net, inputs, labels)) / samples
        for name, attack in attacks.items():
            with counted_passes(net) as counter:
                spent = seconds(lambda attack=attack: attack(net, inputs, labels))
            alone = counter.num_forwards - counter.num_backwards
            ratios[name].append(spent / (counter.num_backwards * pair + alone * forward))
            passes[name] = counter
    for name, found in ratios.items():
        counts = (passes[name].num_forwards, passes[name].num_backwards)
        ahead, back = (count / len(inputs) for count in counts)
        print(
            f"{options.net}, {name}: {ahead:.0f} forward and {back:.0f} backward passes a sample, "
            f"median {median(found):.2f} x the bare passes "
            f"({min(found):.2f} to {max(found):.2f})"
        )


if __name__ == "__main__":
    main()
