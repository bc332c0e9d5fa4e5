"""Names of nets as they stand in pictures and file names."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path


def file_labels(names: Iterable[str]) -> dict[str, str]:
    """Each net as it stands in pictures and file names: short where that tells them apart.

    Example:
        >>> file_labels(["M1", "runs/a/best.ckpt"])
        {'M1': 'M1', 'runs/a/best.ckpt': 'best'}
        >>> file_labels(["runs/a/checkpoints/best.ckpt", "runs/b/checkpoints/best.ckpt"])
        {'runs/a/checkpoints/best.ckpt': 'a_best', 'runs/b/checkpoints/best.ckpt': 'b_best'}
    """
    short = {n: Path(n).stem if n.endswith((".ckpt", ".safetensors")) else n for n in names}
    alike: dict[str, list[str]] = defaultdict(list)
    for name, label in short.items():
        alike[label].append(name)
    labels = {
        name: label
        if len(alike[label]) == 1
        else f"{_place(name, alike[label])}_{label}"[-100:].strip("_")
        for name, label in short.items()
    }
    seen: Counter[str] = Counter()
    for name, label in labels.items():
        seen[label] += 1
        if seen[label] > 1:  # a-b/best.ckpt and a_b/best.ckpt
            labels[name] = f"{label}-{seen[label]}"
    return labels


def _place(name: str, others: Iterable[str]) -> str:
    """The folders of a file that are not those of all files of its name."""
    folders = [Path(other).parts[:-1] for other in others]
    shared = set.intersection(*map(set, folders))
    own = [part for part in Path(name).parts[:-1] if part not in shared]
    return re.sub(r"\W+", "_", "_".join(own)).strip("_")
