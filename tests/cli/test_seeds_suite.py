"""Four attacks side by side: what their suite asks of them, keeps and shows."""

import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from sztrain.data import Digits
from sztrain.models import digits_cnn, load_net, save_net

NETS = ("digits_standard", "digits_sparse_at")
OPTIONS = ("sigma_zero", "gse_mnist", "lin_sparse_mnist", "aslo")
SEEDS = (
    f"evaluate suite=seeds suite.models=[{','.join(NETS)}] suite.num_steps=[3] "
    "suite.num_samples=12 suite.batch_size=8 hydra.run.dir=out"
)


def adv_inputs(folder):
    files = sorted(folder.glob("*.safetensors.gz"))
    return torch.cat([load(gzip.decompress(file.read_bytes()))["adv_inputs"] for file in files])


def predictions(net, inputs):
    with torch.no_grad():
        return net(inputs).argmax(dim=1)


@pytest.mark.slow
def test_four_attacks_side_by_side(call, table, tmp_path, without_pictures):
    outcome = call(SEEDS)
    assert outcome.status == 0, outcome.err
    out = tmp_path / "out"
    rows = table("out/results.csv")
    attacks = ["sigma-zero", "GSE", "LinSparse", "ASLO"]
    assert [(row["model"], row["attack"]) for row in rows] == [
        (n, a) for n in NETS for a in attacks
    ]

    # The attacks are those that suit the data, with the steps that the suite grants.
    for option, steps in zip(OPTIONS, (3, 60, 6, 3), strict=True):
        identity = json.loads((out / f"batches/{NETS[0]}-{option}-3/identity.json").read_text())
        assert identity["attack"]["num_steps"] == steps
    assert "amplitude=full" in rows[2]["options"]

    # Every figure is that of the records, and these are those of the examples.
    inputs = torch.stack([Digits().part("test")[i][0] for i in range(12)])
    for row, (net, option) in zip(rows, [(n, o) for n in NETS for o in OPTIONS], strict=True):
        records = table(f"out/records/{net}-{option}-3.csv")
        delta = adv_inputs(out / f"batches/{net}-{option}-3") - inputs
        features = (delta != 0).flatten(1).sum(dim=1)
        assert [int(record["features"]) for record in records] == features.tolist()
        for name in ("features", "pixels", "clusters"):
            counts = [int(record[name]) for record in records if int(record["features"])]
            expected = np.mean(counts) if counts else np.nan
            assert float(row[name] or "nan") == pytest.approx(expected, nan_ok=True)
        assert float(row["queries_k"]) > 0

    _check_transfer(table("out/transfer.csv"), out)
    report = (out / "report.html").read_text()
    assert 'id="Transfer"' in report
    assert '<th scope="col">on digits_standard</th>' in report
    drawn = {path.name for path in (out / "explanations").iterdir()}
    assert drawn == {f"{net}-lin_sparse_mnist-3.png" for net in NETS}
    assert report.count("What the changes do: digits_") == 2

    _check_resumed(call, out)


def _check_transfer(rows, out):
    assert len(rows) == len(OPTIONS) * 2
    loaded = {net: load_net(net) for net in NETS}
    test = Digits().part("test")
    inputs = torch.stack([test[i][0] for i in range(12)])
    labels = torch.tensor([int(test[i][1]) for i in range(12)])
    right = {net: predictions(loaded[net], inputs) == labels for net in NETS}
    expected = []
    for option in OPTIONS:
        for source, target in (NETS, NETS[::-1]):
            found = adv_inputs(out / f"batches/{source}-{option}-3")
            fools = {net: predictions(loaded[net], found) != labels for net in NETS}
            counts = right[source] & right[target] & fools[source]
            share = 100 * fools[target][counts].float().mean().item()
            expected.append((source, target, int(counts.sum()), pytest.approx(share, abs=1e-4)))
    found = [
        (row["source"], row["target"], int(row["num_examples"]), float(row["fooled"]))
        for row in rows
    ]
    assert found == expected
    assert len({row["fooled"] for row in rows}) > 1


def _check_resumed(call, out):
    """Whatever is taken away is made again, and nothing else is."""
    batch = out / f"batches/{NETS[0]}-aslo-3"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors.gz")}
    gone = [batch / "000008.safetensors.gz", *out.glob("explanations/*"), out / "transfer.csv"]
    for path in gone:
        path.unlink()
    assert call(SEEDS).status == 0
    for path in (*gone, out / f"records/{NETS[0]}-aslo-3.csv"):
        assert path.read_bytes() == before[path], path
    assert [path for path in times if path.stat().st_mtime_ns != times[path]] == gone[:1]


@pytest.mark.slow
def test_a_net_with_a_folder_of_images_brings_its_folder(call, table, tmp_path):
    spec = {"_target_": "sztrain.models.digits_cnn", "num_classes": 2, "in_channels": 3, "width": 2}
    data = {"name": "folder", "root": "pictures", "num_classes": 2, "in_channels": 3}
    generator = np.random.default_rng(0)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "pictures" / place).mkdir(parents=True)
        for i in range(3):
            pixels = generator.integers(0, 255, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / place / f"{i}.png")
    net = digits_cnn(num_classes=2, in_channels=3, width=2)
    described = {"net": spec, "data": data, "unit": "features", "method": {"name": "standard"}}
    save_net(net, described, tmp_path / "net.safetensors")
    command = "evaluate suite=seeds suite.models=[net.safetensors] suite.attacks=[sigma_zero]"
    outcome = call(f"{command} suite.num_steps=[2] hydra.run.dir=out")
    assert outcome.status == 0, outcome.err
    (row,) = table("out/results.csv")
    assert (row["dataset"], row["num_samples"]) == ("folder", "6")
    assert not (tmp_path / "out" / "transfer.csv").exists()
    assert "no transfer: no two nets were attacked on the same samples" in outcome.out
