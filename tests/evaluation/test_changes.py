"""How changes lie, counted by hand and by another road."""

import pytest
import torch
from clusters import clusters_by_walking
from toy_training import toy_data, toy_net

from sztrain.attacks import SigmaZero
from sztrain.evaluation.changes import count_changes, mean_changes
from sztrain.evaluation.record import CHANGES, Record, common_cells
from sztrain.evaluation.recording import record_attack
from sztrain.evaluation.records import Records


def record(index, **changes):
    broken = changes.pop("success", True)
    return Record(
        index=index,
        label=0,
        clean_prediction=0,
        l0=1.0 if broken else float("inf"),
        success=broken,
        num_forwards=1,
        num_backwards=1,
        **changes,
    )


@pytest.mark.parametrize("unit", ["features", "pixels"])
def test_every_record_of_an_image_says_how_its_changes_lie(tmp_path, unit):
    net, data = toy_net(), toy_data(12)
    attack, records = SigmaZero(num_steps=12, unit=unit), Records(tmp_path / "a", {})
    list(record_attack(net, attack, data, records, [range(12)]))
    result = attack(net, *data.tensors)
    changed = result.adv_inputs != data.tensors[0]
    rows = records.read(range(12))
    assert [row.features for row in rows] == changed.flatten(1).sum(dim=1).tolist()
    at = changed.any(dim=1)
    assert [row.pixels for row in rows] == at.flatten(1).sum(dim=1).tolist()
    assert [row.clusters for row in rows] == [clusters_by_walking(image) for image in at]
    assert [getattr(row, unit) for row in rows] == [row.l0 for row in rows]
    assert any(0 < row.clusters < row.pixels for row in rows)


def test_what_is_no_image_has_no_such_columns(tmp_path):
    data, net = toy_data(6), toy_net()
    tables = torch.utils.data.TensorDataset(data.tensors[0].flatten(1), data.tensors[1])
    records = Records(tmp_path / "a", {})
    list(record_attack(net, SigmaZero(num_steps=2), tables, records, [range(6)]))
    (header,) = records.folder.glob("*.csv")
    assert header.read_text().splitlines()[0].endswith(",num_backwards")
    assert mean_changes(records.read(range(6))) == dict.fromkeys(CHANGES)
    assert count_changes(torch.ones(2, 3, 5)) == {}


def test_means_are_over_what_was_broken_by_a_change():
    rows = [
        record(0, features=6, pixels=2, clusters=1),
        record(1, features=3, pixels=3, clusters=2),
        record(2, features=0, pixels=0, clusters=0),  # misclassified from the start
        record(3, features=0, pixels=0, clusters=0, success=False),
    ]
    assert mean_changes(rows) == {"features": 4.5, "pixels": 2.5, "clusters": 1.5}
    assert mean_changes(rows[2:]) == dict.fromkeys(CHANGES)


def test_records_of_an_earlier_version_are_read_and_mixed_with_new_ones(tmp_path):
    old = (
        "index,label,clean_prediction,l0,success,num_forwards,num_backwards\n"
        "0,2,2,3.0,True,102,92\n"
    )
    records = Records(tmp_path / "a", {})
    (tmp_path / "a" / "000000.csv").write_text(old)
    rows = [*records.read(range(1)), record(1, features=6, pixels=2, clusters=1)]
    assert rows[0].clusters is None
    first, second = common_cells(rows)
    assert list(first) == list(second) == old.split()[0].split(",")
    assert common_cells(rows[::-1]) == [second, first]
    # Not a mean over a part of the samples, which nothing would tell.
    for some in (rows[:1], rows):
        assert mean_changes(some) == dict.fromkeys(CHANGES)
