"""Whose examples fool whom: on linear nets, where it can be said beforehand."""

import gzip

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError
from sztrain.evaluation.recording import record_attack
from sztrain.evaluation.records import Records
from sztrain.evaluation.transfer import count_transfer, transfer_table

SPANS = [range(3), range(3, 5)]


class Above(nn.Module):
    """Class 0 where one feature is above a bound, else class 1."""

    def __init__(self, feature, bound):
        super().__init__()
        self.feature, self.bound = feature, bound

    def forward(self, inputs):
        margin = inputs.flatten(1)[:, self.feature] - self.bound
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


# The last two samples: the second net, the first net is wrong from the start.
INPUTS = torch.tensor([[0.9, 0.9], [0.7, 0.9], [0.95, 0.8], [0.55, 0.9], [0.2, 0.9]])
DATA = TensorDataset(INPUTS.view(5, 1, 1, 2), torch.zeros(5, dtype=torch.int64))
FIRST = Above(0, 0.5)


@pytest.fixture
def records(tmp_path):
    kept = Records(tmp_path / "first", {}, keeps_adv_inputs=True)
    list(record_attack(FIRST, SigmaZero(num_steps=30), DATA, kept, SPANS))
    return kept


def counted(records, net):
    batches = ((records.read_adv_inputs(span), records.read(span)) for span in SPANS)
    clean = dict(enumerate(net(DATA.tensors[0]).argmax(dim=1).tolist()))
    return count_transfer(net, batches, clean)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Above(0, 0.6), (3, 3)),  # less than 0.5 is less than 0.6; 0.55 is wrong from the start
        (Above(0, 0.05), (4, 0)),  # the smallest l0 says nothing of how far: see below
        (Above(1, 0.5), (4, 0)),  # looks where nothing was changed
        (Above(1, 0.85), (3, 0)),
        (Above(0, 0.99), (0, 0)),
    ],
)
def test_an_example_fools_the_nets_whose_bound_it_crosses(records, other, expected):
    adv_inputs = torch.cat([records.read_adv_inputs(span) for span in SPANS])
    moved = adv_inputs.flatten(1)[:4, 0]
    assert (moved < 0.5).all()
    if other.bound == 0.05:
        expected = (4, int((moved < 0.05).sum()))
    assert counted(records, other) == expected


def test_what_the_attack_did_not_break_is_no_example(tmp_path):
    class Never(SigmaZero):
        """An attack that changes nothing and fails."""

        def __call__(self, net, inputs, labels):
            result = super().__call__(net, inputs, labels)
            wrong = result.l0 == 0
            result.adv_inputs.copy_(inputs)
            result.success.copy_(wrong)
            result.l0.masked_fill_(~wrong, torch.inf)
            return result

    kept = Records(tmp_path / "a", {}, keeps_adv_inputs=True)
    list(record_attack(FIRST, Never(num_steps=3), DATA, kept, SPANS))
    assert counted(kept, Above(0, 0.6)) == (0, 0)


def test_examples_come_back_as_they_were_and_the_file_is_the_same_each_time(records, tmp_path):
    inputs, labels = (values[:3] for values in DATA.tensors)
    expected = SigmaZero(num_steps=30)(FIRST, inputs, labels).adv_inputs
    assert torch.equal(records.read_adv_inputs(range(3)), expected)
    path = records.folder / "000000.safetensors.gz"
    first = path.read_bytes()
    records.write_adv_inputs(range(3), expected)
    assert path.read_bytes() == first


@pytest.mark.parametrize("spoil", ["cut", "empty", "no gzip", "no safetensors", "of others"])
def test_damaged_examples_are_refused_and_missing_ones_are_waited_for(records, spoil):
    path = records.folder / "000003.safetensors.gz"
    whole = path.read_bytes()
    other = (records.folder / "000000.safetensors.gz").read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "no gzip": b"abc",
            "no safetensors": gzip.compress(b"abc"),
            "of others": other,
        }[spoil]
    )
    with pytest.raises(InputError, match=r"000003\.safetensors\.gz is damaged: .*; remove it"):
        records.read_adv_inputs(range(3, 5))
    path.unlink()
    assert [records.has(span) for span in SPANS] == [True, False]
    assert all(Records(records.folder, {}).has(span) for span in SPANS)  # who wants none


def test_the_table_has_a_row_for_each_attack_and_source_and_a_column_for_each_target():
    about = {"options": "", "steps": 100, "unit": "features"}
    rows = [
        about | {"attack": attack, "source": a, "target": b, "fooled": share}
        for attack, a, b, share in [
            ("GSE", "A", "B", 25.0),
            ("GSE", "A", "C", None),
            ("GSE", "B", "A", 75.0),
            ("ASLO", "A", "B", 5.0),
        ]
    ]
    headings, body = transfer_table(rows)
    assert headings == ["attack", "N", "examples from", "on A", "on B", "on C"]
    assert [[cell.ours for cell in row] for row in body] == [
        ["GSE", "100", "A", "", "25", ""],
        ["GSE", "100", "B", "75", "", ""],
        ["ASLO", "100", "A", "", "5", ""],
    ]


def test_features_and_pixels_have_rows_of_their_own():
    about = {"attack": "GSE", "options": "", "steps": 100, "source": "A", "target": "B"}
    rows = [about | {"unit": u, "fooled": f} for u, f in (("features", 25.0), ("pixels", 75.0))]
    headings, body = transfer_table(rows)
    assert headings == ["attack", "N", "unit", "examples from", "on B"]
    assert [[cell.ours for cell in row] for row in body] == [
        ["GSE", "100", "features", "A", "25"],
        ["GSE", "100", "pixels", "A", "75"],
    ]
