"""Write made-up images in CIFAR-10's (and CIFAR-100's) on-disk format.

As a script: ``python tests/helpers/cifar_files.py FOLDER`` fills ``FOLDER/cifar-10-batches-py``.
"""

import pickle
import sys
from pathlib import Path

import numpy as np


def _write(path, num_images, label_key, num_classes, generator):
    labels = np.arange(num_images) % num_classes
    # Noise around a brightness that grows with the class: a net can learn something.
    base = 40 + 160 * labels[:, None] // max(1, num_classes - 1)
    images = (base + generator.integers(0, 50, size=(num_images, 3072))).astype(np.uint8)
    content = {
        "batch_label": f"made-up {path.name}",
        label_key: labels.tolist(),
        "data": images,
        "filenames": [f"{path.name}_{i:05d}.png" for i in range(num_images)],
    }
    path.write_bytes(pickle.dumps(content, protocol=2))
    return images.reshape(-1, 3, 32, 32), labels


def write_cifar10(root, num_images=40, num_test=30, seed=0):
    """Write five training batches of ``num_images`` and a test batch; return what was written."""
    folder = Path(root) / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    written = {
        name: _write(folder / name, size, "labels", 10, generator)
        for name, size in [(f"data_batch_{i}", num_images) for i in range(1, 6)]
        + [("test_batch", num_test)]
    }
    meta = {"label_names": [f"class{i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return written


def write_cifar100(root, num_images=300, num_test=100, seed=0):
    """Write CIFAR-100's two files; return what was written."""
    folder = Path(root) / "cifar-100-python"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    return {
        name: _write(folder / name, size, "fine_labels", 100, generator)
        for name, size in (("train", num_images), ("test", num_test))
    }


if __name__ == "__main__":
    write_cifar10(sys.argv[1])
