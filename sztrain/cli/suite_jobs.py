"""The jobs of a suite, and rows for what cannot be had."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.utils.data import Subset

from sztrain.attacks.checks import check_search
from sztrain.attacks.peers import check_library
from sztrain.cli.build import build_data
from sztrain.cli.checks import check_attack
from sztrain.cli.file_labels import file_labels
from sztrain.cli.groups import config_option, require_options
from sztrain.cli.jobs import Job, Selection
from sztrain.cli.net_checks import check_known_net, options_brought_by
from sztrain.cli.net_data import CUT, data_of_net
from sztrain.cli.suites import Run, Suite
from sztrain.cli.team import automatic_batch_size
from sztrain.data import ImageDataModule
from sztrain.errors import InputError, UnavailableError, warn
from sztrain.evaluation.rows import missing_row
from sztrain.evaluation.setting import Setting
from sztrain.models import load_net
from sztrain.models.layout import to_channels_last
from sztrain.norms import check_budgets

# What helps where data is missing, and what it is called in a suite.
_IN_SUITE = {
    "data.root (or SZTRAIN_DATA_DIR)": "SZTRAIN_DATA_DIR",
    "data.download=": "suite.download=",
}


def suite_jobs(
    suite: Suite, *, device: torch.device, channels_last: bool, seed: int, output_dir: Path
) -> Iterator[Job | dict[str, Any]]:
    """The jobs of a suite; a row where a net cannot be had.

    What can be told without loading published nets is refused now, before the first job is asked
    for. At most two nets are in memory: one that is loaded, and the one whose jobs are done.

    Args:
        suite: what runs.
        device: where it runs, for batch sizes that are left open.
        channels_last: whether to attack the nets in ``torch.channels_last``.
        seed: of the data.
        output_dir: folder of the evaluation.

    Raises:
        InputError: an attack or a net that does not exist; a damaged file; data unfit for the net;
            an attack with too few steps, or with a budget beyond the size of a sample; two runs
            that are one; nets whose test parts differ.
    """
    _check_suite(suite)

    @cache
    def selection_of(model: str) -> Selection:
        dataset, options = data_of_net(model)
        with options_brought_by([model], "it is judged alone: net={net} ~data.{option}"):
            return selection_on(dataset, json.dumps(options))

    @cache
    def selection_on(dataset: str, options: str) -> Selection:
        return _selection(dataset, json.loads(options), suite, seed)

    test_parts: dict[str, tuple[str, dict[str, Any]]] = {}
    for model in suite.models:
        with suppress(UnavailableError):
            data = selection_of(model).data
            _check_runs(suite, data)
            _check_test_part(model, data, test_parts)
            if Path(model).suffix:  # a file; the nets that have names fit their data
                check_known_net(load_net(model), data, model)
    return _jobs(suite, selection_of, device, channels_last, output_dir)


def _jobs(
    suite: Suite,
    selection_of: Callable[[str], Selection],
    device: torch.device,
    channels_last: bool,
    output_dir: Path,
) -> Iterator[Job | dict[str, Any]]:
    """The jobs of a suite that has been checked, one net at a time."""
    labels = file_labels(suite.models)
    for model in suite.models:
        dataset, _ = data_of_net(model)
        runs = suite.runs_on(dataset)
        try:
            selection = selection_of(model)
            net = load_net(model)
            if channels_last:
                to_channels_last(net)
        except UnavailableError as error:
            for run in runs:
                yield _missing_row(model, dataset, run, error, suite.grid)
            continue
        check_known_net(net, selection.data, model)
        shape = selection.data.image_shape
        for run in runs:
            try:
                check_library(run.attack)
            except UnavailableError as error:
                yield _missing_row(model, dataset, run, error, suite.grid)
                continue
            yield Job(
                label=f"{labels[model]}-{run.label}",
                model=model,
                net_label=labels[model],
                net=net,
                attack=run.attack,
                steps=run.steps,
                selection=selection,
                batch_size=suite.batch_size or automatic_batch_size(device, shape),
                budgets=suite.fixed_budgets,
                output_dir=output_dir,
                attack_name=run.name,
                channels_last=channels_last,
                explained=run.explained,
                keeps_adv_inputs=suite.transfer and run.attack.budget is None,
            )


def _check_suite(suite: Suite) -> None:
    """Refuse before hours are spent what its first job would not show."""
    require_options("suite.variants", "data", suite.variants)
    for key, names in suite.spoken_of.items():
        require_options(f"suite.{key}", "attack", names)
    for dataset in ("", *suite.variants):
        for run in suite.runs_on(dataset):
            check_search(run.attack, f"suite: {run.label}")
    wrong, datasets = [], set()
    for model in suite.models:
        try:
            datasets.add(data_of_net(model)[0])
        except UnavailableError:
            continue
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError("; ".join(wrong))
    for dataset in sorted(datasets):
        _check_labels(suite, dataset)


def _check_runs(suite: Suite, data: ImageDataModule) -> None:
    """Refuse budgets that are larger than the images of a data set."""
    runs = suite.runs_on(data.name)
    for unit in sorted({run.attack.unit for run in runs}):
        check_budgets("suite.fixed_budgets", suite.fixed_budgets, data.image_shape, unit)
    for run in runs:
        with suppress(UnavailableError):
            check_attack(f"suite: {run.label}", run.attack, data.image_shape)


def _check_labels(suite: Suite, dataset: str) -> None:
    """Refuse two runs whose records would be kept in the same files."""
    labels = [run.label for run in suite.runs_on(dataset)]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(
            f"expected the runs of a suite to differ, got {', '.join(twice)} twice on {dataset}: "
            "drop an attack that is another's variant there (suite.variants), or a grid's value"
        )


def _check_test_part(
    model: str, data: ImageDataModule, known: dict[str, tuple[str, dict[str, Any]]]
) -> None:
    """Refuse to lay nets side by side that are judged on other samples of the same data.

    Args:
        model: name of a net.
        data: its data.
        known: for each data set, a net and how its test part was cut; added to.
    """
    if not data.cuts_test:
        return
    cut = {key: getattr(data, key) for key in CUT if key != "val_fraction" and hasattr(data, key)}
    other, of_other = known.setdefault(data.name, (model, cut))
    if cut != of_other:
        told = " and ".join(
            " ".join(f"data.{key}={value}" for key, value in options.items())
            for options in (of_other, cut)
        )
        raise InputError(
            f"{other} and {model} have other test parts of {data.name} ({told}), by which they "
            "cannot be compared; evaluate them apart"
        )


def _missing_row(
    model: str, dataset: str, run: Run, error: UnavailableError, named: Collection[str]
) -> dict[str, Any]:
    """The row of a run that cannot be had."""
    setting = Setting(model=model, dataset=dataset, attack=run.attack, steps=run.steps)
    return missing_row(setting, str(error), named)


def _selection(name: str, options: Mapping[str, Any], suite: Suite, seed: int) -> Selection:
    """The samples of one data set that the suite wants."""
    try:
        return _chosen(name, options, suite, seed)
    except InputError as error:
        message = str(error)
        for option, of_suite in _IN_SUITE.items():
            message = message.replace(option, of_suite)
        raise type(error)(message) from error


def _chosen(name: str, options: Mapping[str, Any], suite: Suite, seed: int) -> Selection:
    # Not merged: a mapping that a net brings along takes the place of the config's own.
    configured: Any = OmegaConf.to_container(config_option("data", name))
    chosen = {**configured, **options, "download": suite.download}
    data = build_data(OmegaConf.create({"seed": seed, "data": chosen}).data)
    part = data.part("test")
    if suite.first_sample >= len(part):
        raise InputError(
            f"expected `suite.first_sample` to be below {len(part)}, the size of the test split "
            f"of {name}, got {suite.first_sample}"
        )
    samples = range(len(part))[suite.first_sample :][: suite.num_samples]
    wanted = suite.num_samples
    if suite.first_sample and wanted is not None and len(samples) < wanted:
        warn(
            f"the test split of {name} has {len(samples)} samples from {suite.first_sample} on, "
            f"fewer than suite.num_samples={wanted}; all of them are attacked"
        )
    return Selection(data, Subset(part, samples))
