"""Records on disk: whole or not at all, of one run alone, and read as they were written."""

import gzip
import importlib
import json
import math
import os
import shutil
import sys
from dataclasses import asdict, dataclass, replace

import pytest
import torch
from safetensors.torch import save
from torch import nn

from sztrain.attacks import SigmaZero, SparseRS
from sztrain.errors import InputError
from sztrain.evaluation import identity
from sztrain.evaluation.examples import Examples
from sztrain.evaluation.identity import attack_identity, data_digest, net_digest
from sztrain.evaluation.record import Cost, Record, total_cost
from sztrain.evaluation.records import Records, batch_spans
from sztrain.files import write_whole
from sztrain.models import Normalize
from sztrain.types import Attack

IDENTITY = {"attack": {"name": "SigmaZero", "num_steps": 10, "budget": None}, "num_samples": 10}
COST = Cost(num_samples=4, seconds=0.1, num_forwards=44, num_backwards=40, peak_memory=7)


def rows(span):
    return [
        Record(
            index=i,
            label=i % 3,
            clean_prediction=i % 2,
            l0=float("inf") if i % 4 == 3 else i + 0.0,
            success=i % 4 != 3,
            num_forwards=100 + i,
            num_backwards=90 + i,
        )
        for i in span
    ]


def test_costs_of_several_devices_name_them_all():
    costs = [
        Cost(
            num_samples=1,
            seconds=1.0,
            num_forwards=1,
            num_backwards=1,
            peak_memory=memory,
            device=device,
        )
        for device, memory in (("some GPU", 3), ("cpu", 7), ("some GPU", 5))
    ]
    total = total_cost(costs)
    assert (total.device, total.peak_memory, total.num_samples) == ("cpu, some GPU", 7, 3)


def test_what_is_read_is_what_was_written(tmp_path):
    records, span = Records(tmp_path / "M1", IDENTITY), range(24, 28)
    assert not records.has(span)
    records.write(span, rows(span), COST)
    again = Records(tmp_path / "M1", IDENTITY)
    assert again.has(span)
    assert not again.has(range(4))
    assert again.read(span) == rows(span)
    assert again.cost(span) == COST


def test_the_file_of_a_batch_is_plain_csv(tmp_path):
    records, span = Records(tmp_path, IDENTITY), range(2, 4)
    records.write(span, rows(span), COST)
    assert (tmp_path / "000002.csv").read_text() == (
        "index,label,clean_prediction,l0,success,num_forwards,num_backwards\n"
        "2,2,0,2.0,True,102,92\n"
        "3,0,1,inf,False,103,93\n"
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"num_samples": 11}, "num_samples is 10 there and 11 here"),
        ({"attack": {"name": "FMN", "num_steps": 10}}, "attack.budget is None there|attack.name"),
        ({"data": "x"}, "data is None there and x here"),
        ({"data": "x", "num_samples": 11}, "num_samples is 10 there and 11 here"),
    ],
)
def test_records_of_another_run_are_refused_and_left_alone(tmp_path, other, message):
    records, span = Records(tmp_path, IDENTITY), range(4)
    records.write(span, rows(span), COST)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=message):
        Records(tmp_path, IDENTITY | other)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_records_without_an_identity_are_refused(tmp_path):
    records, span = Records(tmp_path, IDENTITY), range(4)
    records.write(span, rows(span), COST)
    (tmp_path / "identity.json").unlink()
    with pytest.raises(InputError, match=r"identity\.json is missing"):
        Records(tmp_path, IDENTITY)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_refused_in_one_line(tmp_path, keep):
    records, span = Records(tmp_path, IDENTITY), range(40)
    records.write(span, rows(span), COST)
    path = tmp_path / "000000.csv"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    whole = "it does not hold the samples 0 to 39, each whole"
    with pytest.raises(InputError, match=rf"000000\.csv is damaged: {whole}; remove it") as raised:
        records.read(span)
    assert "\n" not in str(raised.value)


def test_every_cut_is_noticed(tmp_path):
    records, span = Records(tmp_path, IDENTITY), range(3)
    records.write(span, rows(span), COST)
    path = tmp_path / "000000.csv"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="is damaged"):
            records.read(span)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"seconds": 1}', "[" * 100_000),
        *(
            json.dumps(asdict(COST) | wrong)
            for wrong in (
                *({"seconds": "x"}, {"num_samples": 0}, {"num_forwards": -1}),
                *({"seconds": value} for value in (float("nan"), float("inf"), -0.1)),
            )
        ),
    ],
)
def test_a_damaged_cost_is_refused(tmp_path, text):
    records, span = Records(tmp_path, IDENTITY), range(4)
    records.write(span, rows(span), COST)
    (tmp_path / "000000.json").write_text(text)
    with pytest.raises(InputError, match=r"000000\.json is damaged"):
        records.cost(span)


@pytest.mark.parametrize("content", [b"\0" * 200_000, b'"' + 200_000 * b"x"])
def test_records_of_one_long_field_are_damaged(tmp_path, content):
    records, span = Records(tmp_path, IDENTITY), range(4)
    records.write(span, rows(span), COST)
    (tmp_path / "000000.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"000000\.csv is damaged"):
        records.read(span)


def test_a_batch_is_checked_with_its_cost(tmp_path):
    records, span = Records(tmp_path, IDENTITY), range(24, 28)
    records.write(span, rows(span), COST)
    records.check(span)
    (tmp_path / "000024.json").write_text("{")
    with pytest.raises(InputError, match=r"000024\.json is damaged"):
        records.check(span)


def test_a_key_that_one_side_alone_has_makes_another_run(tmp_path):
    Records(tmp_path, IDENTITY | {"channels_last": True})
    with pytest.raises(InputError, match="channels_last is True there and None here"):
        Records(tmp_path, IDENTITY)


def test_a_damaged_identity_is_refused_with_a_way_out_that_works(tmp_path):
    folder, span = tmp_path / "M1", range(4, 8)
    records = Records(folder, IDENTITY)
    records.write(span, rows(span), COST)
    (folder / "identity.json").write_text("{")
    with pytest.raises(InputError, match=rf"identity\.json is damaged, .* remove {folder}$"):
        Records(folder, IDENTITY)
    shutil.rmtree(folder)
    assert not Records(folder, IDENTITY).has(span)


@pytest.mark.parametrize(
    ("sample", "changed"),
    [
        *((4, {"l0": l0}) for l0 in (*(math.nan, math.inf, -3.0, 2.5), 0.0, 5.0)),
        *((4, counts) for counts in ({"features": 0, "pixels": 0}, {"features": 5, "pixels": 3})),
        *((7, {"l0": l0}) for l0 in (math.nan, -math.inf, 4.0)),
        (7, {"features": 3}),
        *((5, {name: -1}) for name in ("label", "clean_prediction", "num_forwards")),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(tmp_path, sample, changed):
    records, span = Records(tmp_path, IDENTITY), range(4, 8)
    counts = {4: (4, 2), 5: (9, 5), 6: (6, 6), 7: (0, 0)}  # sample 5 counts pixels
    whole = [replace(r, features=counts[r.index][0], pixels=counts[r.index][1]) for r in rows(span)]
    records.write(span, whole, COST)
    assert records.read(span) == whole
    damaged = [replace(row, **changed) if row.index == sample else row for row in whole]
    records.write(span, damaged, COST)
    with pytest.raises(InputError, match=r"000004\.csv is damaged"):
        records.read(span)


@pytest.mark.parametrize("l0", [-3.0, 2.5, math.nan, math.inf])
def test_an_l0_that_cannot_be_is_refused_where_nothing_else_was_counted(tmp_path, l0):
    records, span = Records(tmp_path, IDENTITY), range(4, 8)
    first, *others = rows(span)
    records.write(span, [replace(first, l0=l0), *others], COST)
    with pytest.raises(InputError, match=r"000004\.csv is damaged"):
        records.read(span)


def test_examples_come_back_and_damaged_ones_are_refused(tmp_path):
    records = Records(tmp_path, IDENTITY)
    classes = torch.arange(3)
    examples = Examples(
        inputs=torch.rand(3, 1, 4, 4),
        adv_inputs=torch.rand(3, 4, 4, 1).permute(0, 3, 1, 2),
        labels=classes,
        clean_predictions=classes + 1,
        adv_predictions=classes + 2,
        l0=torch.tensor([1.0, torch.inf, 0.0]),
    )
    records.write_examples(range(3), examples)
    for name, value in vars(records.read_examples()).items():
        assert torch.equal(value, getattr(examples, name)), name
    records.write_examples(range(3, 5), examples.at(torch.tensor([2, 0])))
    assert records.read_examples().labels.tolist() == [0, 1, 2, 2, 0]
    path = tmp_path / "examples.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"examples\.safetensors is damaged"):
        records.read_examples()


def test_a_batch_counts_once_its_records_are_there(tmp_path, monkeypatch):
    """Killed between the two files of a batch, a run attacks it again."""
    records, span = Records(tmp_path, IDENTITY), range(4)

    def killed_at_records(path, content):
        if path.suffix == ".csv":
            raise KeyboardInterrupt
        write_whole(path, content)

    monkeypatch.setattr("sztrain.evaluation.records.write_whole", killed_at_records)
    with pytest.raises(KeyboardInterrupt):
        records.write(span, rows(span), COST)
    assert not records.has(span)


def test_spans_cover_every_sample_once():
    assert [i for span in batch_spans(11, 4) for i in span] == list(range(11))
    assert [len(span) for span in batch_spans(8, 4)] == [4, 4]


def test_costs_add_up():
    other = Cost(num_samples=1, seconds=2, num_forwards=3, num_backwards=4, peak_memory=5)
    assert total_cost([COST, other]) == Cost(
        num_samples=5, seconds=2.1, num_forwards=47, num_backwards=44, peak_memory=7
    )


def test_digests_tell_nets_and_data_apart():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = net_digest(net)
    assert net_digest(net) == before
    net[1].running_mean[0] += 1e-6
    assert net_digest(net) != before
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    one, other = ({"a": pair[0], "b": pair[1]} for pair in ((first, second), (second, first)))
    assert net_digest(nn.ModuleDict(one)) != net_digest(nn.ModuleDict(other))
    renamed = {"a": first, "c": second}  # the same tensors in the same order
    assert net_digest(nn.ModuleDict(one)) != net_digest(nn.ModuleDict(renamed))
    inputs, labels = torch.rand(4, 3), torch.arange(4)
    whole = data_digest([(inputs, labels)])
    assert data_digest([(inputs[:3], labels[:3]), (inputs[3:], labels[3:])]) == whole
    assert data_digest([(inputs, labels.flip(0))]) != whole
    assert data_digest([(inputs.flip(0), labels)]) != whole


def test_buffers_outside_the_state_dict_are_part_of_a_net():
    nets = [Normalize([mean], [std]) for mean, std in ((0.5, 0.25), (0.5, 0.5), (0.25, 0.25))]
    assert all(not net.state_dict() for net in nets)
    assert len({net_digest(net) for net in nets}) == 3


def test_of_two_evaluations_that_begin_at_once_one_has_the_folder(tmp_path, monkeypatch):
    """The other one looked when nothing was there yet."""
    folder = tmp_path / "M1"

    def first_elsewhere(path, content, **options):
        with monkeypatch.context() as patch:
            patch.setattr(identity, "write_whole", write_whole)
            Records(folder, identity_there)
        write_whole(path, content, **options)

    monkeypatch.setattr(identity, "write_whole", first_elsewhere)
    identity_there = IDENTITY | {"num_samples": 11}
    with pytest.raises(InputError, match="num_samples is 11 there and 10 here"):
        Records(folder, IDENTITY)
    assert [path.name for path in folder.iterdir()] == ["identity.json"]
    shutil.rmtree(folder)
    identity_there = IDENTITY  # as of a team
    assert not Records(folder, IDENTITY).has(range(4))


def test_a_picture_shows_records_only_if_it_is_no_older(tmp_path):
    records, picture = Records(tmp_path, IDENTITY), tmp_path / "picture.png"
    (tmp_path / "examples.safetensors").touch()
    assert not records.precede(picture)
    picture.touch()
    assert records.precede(picture)
    os.utime(picture, ns=(0, 0))
    assert not records.precede(picture)


def test_a_batch_without_its_cost_is_not_done(tmp_path):
    records, span = Records(tmp_path, IDENTITY), range(24, 28)
    records.write(span, rows(span), COST)
    (tmp_path / "000024.json").unlink()
    assert not records.has(span)


def test_records_of_other_samples_are_damaged(tmp_path):
    """As many as there should be, each possible in itself."""
    records, span = Records(tmp_path, IDENTITY), range(4, 8)
    records.write(span, rows(range(8, 12)), COST)
    with pytest.raises(InputError, match="it does not hold the samples 4 to 7, each whole"):
        records.read(span)


def test_a_batch_is_checked_with_its_examples(tmp_path):
    records, span = Records(tmp_path, IDENTITY, keeps_adv_inputs=True), range(4)
    image, classes = torch.rand(4, 1, 2, 2), torch.arange(4)
    shown = Examples(
        inputs=image,
        adv_inputs=1 - image,
        labels=classes,
        clean_predictions=classes + 1,
        adv_predictions=classes + 2,
        l0=torch.zeros(4),
    )
    records.write(span, rows(span), COST)
    records.write_examples(span, shown)
    records.write_adv_inputs(span, image)
    records.check(span)
    for name in ("examples.safetensors", "000000.safetensors.gz"):
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        with pytest.raises(InputError, match=f"{name} is damaged"):
            records.check(span)
        path.write_bytes(whole)


def test_a_picture_that_is_older_than_some_of_the_examples_does_not_show_them(tmp_path):
    """Of batches that are small, the examples lie in several files."""
    records, picture = Records(tmp_path, IDENTITY), tmp_path / "picture.png"
    first, second = (tmp_path / f"examples{place}.safetensors" for place in ("", "-000004"))
    for path, time in ((first, 1000), (picture, 2000), (second, 3000)):
        path.touch()
        os.utime(path, ns=(time, time))
    assert not records.precede(picture)
    os.utime(picture, ns=(3000, 3000))
    assert records.precede(picture)


@pytest.mark.parametrize("spoil", ["reserved", "number"])
def test_examples_that_are_packed_well_and_yet_damaged_are_refused(tmp_path, spoil):
    records, span = Records(tmp_path, IDENTITY, keeps_adv_inputs=True), range(4)
    records.write_adv_inputs(span, torch.rand(4, 1, 2, 2))
    path = tmp_path / "000000.safetensors.gz"
    whole = path.read_bytes()
    reserved = whole[:10] + b"\x07" + whole[11:]  # RFC 1951: no block is of type 3
    number = gzip.compress(save({"adv_inputs": torch.tensor(1.0)}))
    path.write_bytes({"reserved": reserved, "number": number}[spoil])
    with pytest.raises(InputError, match=r"000000\.safetensors\.gz is damaged"):
        records.read_adv_inputs(span)


def test_the_same_examples_are_the_same_file(tmp_path):
    """RFC 1952: four bytes from the fifth on are a time, and 0 says that there is none."""
    Records(tmp_path, IDENTITY).write_adv_inputs(range(4), torch.rand(4, 1, 2, 2))
    assert (tmp_path / "000000.safetensors.gz").read_bytes()[4:8] == bytes(4)


SAMPLES = {"dataset": "mnist", "split": "test", "first_sample": 0}


def test_records_older_than_the_names_of_their_samples_are_as_good(tmp_path):
    Records(tmp_path / "old", IDENTITY)
    Records(tmp_path / "old", IDENTITY | SAMPLES)
    Records(tmp_path / "new", IDENTITY | SAMPLES)
    for name, other in (("dataset", "digits"), ("split", "val"), ("first_sample", 1)):
        with pytest.raises(InputError, match=f"{name} is {SAMPLES[name]} there and {other} here"):
            Records(tmp_path / "new", IDENTITY | SAMPLES | {name: other})


def test_what_json_cannot_tell_apart_is_the_same_run(tmp_path):
    for _ in range(2):
        Records(tmp_path, IDENTITY | {"shape": (3, 4), "weights": {1: 0.5}})


def test_attacks_inside_an_attack_are_part_of_its_identity():
    @dataclass(frozen=True, kw_only=True)
    class Mixed(SigmaZero):
        first: Attack
        others: tuple[Attack, ...]

    found = attack_identity(
        Mixed(first=SparseRS(num_steps=3), others=(SparseRS(num_steps=4, seed=5),))
    )
    assert (found["name"], found["first"]["name"]) == ("Mixed", "SparseRS")
    assert found["first"]["num_steps"] == 3
    assert [(one["num_steps"], one["seed"]) for one in found["others"]] == [(4, 5)]
    assert json.loads(json.dumps(found)) == found


def test_options_hide_nothing_that_an_identity_says_of_an_attack():
    @dataclass(frozen=True, kw_only=True)
    class Coded(SigmaZero):
        name: str = "a"
        code: int = 1
        module: str = ""

    found, other = attack_identity(Coded()), attack_identity(Coded(code=2))
    assert found["name"] == "Coded"
    assert found["module"] == __name__
    assert found["code"].keys() == {__name__}
    assert found != other


OWN = """
from sztrain.attacks import SigmaZero

class Own(SigmaZero):
    def scaled(self, values, by=None):
        return [value * (by or 2) for value in values if value != "none"]
"""


@pytest.fixture
def identity_of(tmp_path, monkeypatch):
    """The identity of an attack whose module has that text."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def of(text):
        (tmp_path / "own_attack.py").write_text(text)
        monkeypatch.delitem(sys.modules, "own_attack", raising=False)
        importlib.invalidate_caches()
        return attack_identity(importlib.import_module("own_attack").Own())

    yield of
    sys.modules.pop("own_attack", None)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("class", "# A comment.\nclass", True),
        ("    def", '    """A docstring."""\n\n    def', True),
        ("for", "\n            for", True),
        ('"none"', "'none'", True),
        ("(by or 2)", "((by) or 2)", True),
        ("or 2", "or 3", False),
        ('"none"', '"None"', False),
        ("by=None", "by=False", False),
        ("by=None", "*, by=None", False),
        ("!=", "==", False),
        ("    def", "    @classmethod\n    def", False),
    ],
)
def test_the_code_of_ones_own_attack_is_what_it_does(identity_of, before, after, same):
    other = OWN.replace(before, after)
    assert other != OWN
    assert (identity_of(OWN) == identity_of(other)) is same


def test_the_code_is_told_in_the_same_way_in_every_version_of_python(identity_of):
    assert identity_of(OWN)["code"] == {"own_attack": "dca73273"}


def test_other_options_are_told_before_other_code(tmp_path, identity_of):
    Records(tmp_path / "a", {"attack": identity_of(OWN)})
    changed = identity_of(OWN.replace("or 2", "or 3"))
    with pytest.raises(InputError, match=r"the code of the attack in .*own_attack\.py has changed"):
        Records(tmp_path / "a", {"attack": changed})
    with pytest.raises(InputError, match=r"attack\.num_steps is 1000 there and 7 here"):
        Records(tmp_path / "a", {"attack": changed | {"num_steps": 7}})


def test_the_order_in_which_layers_were_named_is_no_part_of_a_net():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    one, other = nn.Module(), nn.Module()
    one.a, one.b = first, second
    other.b, other.a = second, first
    assert list(one.state_dict()) != list(other.state_dict())
    assert net_digest(one) == net_digest(other)
