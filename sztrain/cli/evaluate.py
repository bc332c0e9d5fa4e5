"""Attack nets from a composed config and lay the results beside the paper's."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sztrain.attacks.base import require_attack
from sztrain.cli.build import build_data, make, plain, quieten
from sztrain.cli.checks import (
    check_attack,
    check_net,
    check_num_samples,
    set_num_threads,
)
from sztrain.cli.memory import keep_freed_memory
from sztrain.cli.report import print_results
from sztrain.data import ImageDataModule
from sztrain.errors import InputError, require_count
from sztrain.evaluation.figures import (
    adversarial_examples_figure,
    robustness_curve_figure,
    save_figure,
)
from sztrain.evaluation.measurement import Measurement, Tally
from sztrain.evaluation.runner import AttackedBatch, attack_batches
from sztrain.evaluation.tables import PAPER_BUDGETS, paper_row, write_csv
from sztrain.models import load_net
from sztrain.norms import check_budgets, num_units
from sztrain.types import Attack

_COLUMNS = [
    ("model", "net"),
    ("clean_acc", "clean"),
    ("asr_10", "ASR10"),
    ("asr_50", "ASR50"),
    ("asr_inf", "ASR∞"),
    ("median_l0", "median"),
    ("paper_median_l0", "paper"),
    ("mean_l0", "mean"),
    ("time_s", "t"),
    ("queries_k", "q"),
]


def evaluate(cfg: DictConfig) -> list[dict[str, Any]]:
    """Attack every net of ``cfg.net`` and write ``results.csv``, records and pictures.

    Args:
        cfg: composed from ``sztrain.configs``, config ``evaluate``.

    Returns:
        The rows of ``results.csv``.

    Raises:
        InputError: what a person has to mend; raised before the first attack.
    """
    quieten()
    keep_freed_memory()
    set_num_threads(cfg.num_threads)
    require_count("batch_size", cfg.batch_size, 1)
    attack: Attack = make(cfg.attack, "attack")
    require_attack("attack", attack)
    data = build_data(cfg.data)
    device = _device(cfg.device)
    nets = {name: load_net(name) for name in _names(cfg.net)}
    for name, net in nets.items():
        check_net(net, data, name)
    labels = _labels(list(nets))
    part = data.part(cfg.split)
    num_samples = check_num_samples("num_samples", cfg.num_samples, part, cfg.split)
    check_attack("attack", attack, data.image_shape)
    check_budgets("budgets", plain(cfg.budgets), data.image_shape, attack.unit)
    size = num_units(data.image_shape, attack.unit)
    budgets = sorted({k for k in (*PAPER_BUDGETS, *plain(cfg.budgets)) if k <= size})
    output_dir = Path(cfg.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, output_dir / "config.yaml", resolve=True)
    rows, curves = [], {}
    for name, net in nets.items():
        samples = Subset(part, range(num_samples))
        loader = DataLoader(samples, cfg.batch_size, num_workers=data.num_workers)
        measurement, queries = _attack_net(
            labels[name], net.to(device), attack, data, loader, budgets, device, output_dir
        )
        rows.append(
            paper_row(
                measurement,
                model=name,
                dataset=data.name,
                attack=attack,
                mean_queries=queries,
                batch_size=cfg.batch_size,
                **_hardware(device),
            )
        )
        curves[labels[name]] = measurement.curve
        write_csv(rows, output_dir / "results.csv")
    figure = robustness_curve_figure(
        curves, attack.unit, budgets=plain(cfg.budgets), title=_judged_by(attack)
    )
    save_figure(figure, output_dir / "curves" / f"{attack.unit}.png")
    print_results(rows, _COLUMNS, f"{_judged_by(attack)} on {num_samples} images of {data.name}")
    return rows


def _judged_by(attack: Attack) -> str:
    return f"{type(attack).__name__} only, N={attack.num_steps}, {attack.unit}"


def _names(net: Any) -> list[str]:
    names = [str(name) for name in (plain(net) if OmegaConf.is_list(net) else [net])]
    if net is None or not names:
        raise InputError("expected net to name at least one net, got none; such as net=M1")
    return names


def _labels(names: list[str]) -> dict[str, str]:
    """Each net as it stands in pictures and file names: short where that tells them apart."""
    short = {n: Path(n).stem if n.endswith((".ckpt", ".safetensors")) else n for n in names}
    often = Counter(short.values())
    return {
        name: label if often[label] == 1 else re.sub(r"\W+", "_", name).strip("_")[-100:]
        for name, label in short.items()
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"expected device to be auto or a device this machine has, got {name}"
        ) from error


def _hardware(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"device": "cpu", "vram_gb": None}
    return {
        "device": torch.cuda.get_device_name(device),
        "vram_gb": torch.cuda.max_memory_allocated(device) / 2**30,
    }


def _attack_net(
    label: str,
    net: nn.Module,
    attack: Attack,
    data: ImageDataModule,
    batches: "DataLoader[Any]",
    budgets: list[int],
    device: torch.device,
    output_dir: Path,
) -> tuple[Measurement, float]:
    """Attack all batches and write records and examples; also the mean queries of a sample."""
    tally = Tally(data.image_shape, attack.unit, budgets, device, num_examples=8)
    records: list[dict[str, Any]] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with Progress() as progress:
        task = progress.add_task(label, total=len(batches.dataset))  # type: ignore[arg-type]
        for batch in attack_batches(net, attack, batches, device):
            tally.add(net, batch)
            records.extend(_records(batch, start=len(records)))
            progress.update(
                task,
                advance=len(batch.labels),
                description=f"{label}, median ℓ0 {tally.running_median:g}",
            )
    measurement = tally.measurement()
    write_csv(records, output_dir / "records" / f"{label}.csv")
    shown = measurement.examples
    if shown is not None and data.in_channels in (1, 3):
        figure = adversarial_examples_figure(
            shown.inputs,
            shown.adv_inputs,
            shown.labels,
            shown.clean_predictions,
            shown.adv_predictions,
            shown.l0,
            attack.unit,
        )
        save_figure(figure, output_dir / "examples" / f"{label}.png")
    queries = sum(record["num_forwards"] + record["num_backwards"] for record in records)
    return measurement, queries / len(records)


def _records(batch: AttackedBatch, start: int) -> Iterator[dict[str, Any]]:
    """One row a sample."""
    columns: dict[str, Tensor] = {
        "label": batch.labels,
        "clean_prediction": batch.clean_predictions,
        "l0": batch.result.l0,
        "success": batch.result.success,
        "num_forwards": batch.result.num_forwards,
        "num_backwards": batch.result.num_backwards,
    }
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    for index, row in enumerate(values, start=start):
        yield {"index": index, **dict(zip(columns, row, strict=True))}
