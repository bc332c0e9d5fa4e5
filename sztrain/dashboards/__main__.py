"""``python -m sztrain.dashboards entity/project``: create the workspace and the report."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sztrain.dashboards.build import build_report, build_workspace
from sztrain.dashboards.library import reports
from sztrain.errors import InputError
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.wandb_account import has_wandb_key
from sztrain.types import UNITS

_NEWEST_RUNS = 20
_USAGE_ERROR = 2


def main(args: Sequence[str] | None = None) -> int:
    """Create both and print where they are.

    Args:
        args: of the command line; ``None``: those of this process.

    Returns:
        The exit status: 0, or 2 after one line on what has to be mended.
    """
    options = _parser().parse_args(args)
    try:
        _create(options)
    except InputError as error:
        print(f"sztrain: error: {error}", file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sztrain.dashboards",
        description="Create a workspace and a report in Weights & Biases for runs that "
        "SparseRobustness and RobustnessDashboard logged. The budgets are those of the newest "
        "such run of the project, unless they are given.",
    )
    parser.add_argument("place", metavar="entity/project")
    parser.add_argument("--budgets", type=int, nargs="+", help="budgets of the gauge")
    parser.add_argument("--probe-budgets", type=int, nargs="*", default=[], help="of its probe")
    parser.add_argument("--unit", choices=UNITS, help=f"what they count; default {UNITS[0]}")
    parser.add_argument("--no-verdict", action="store_true", help="leave out the test samples")
    return parser


def _create(options: argparse.Namespace) -> None:
    """Build the workspace and the report, and hand them to W&B.

    Raises:
        InputError: the place is none, options that do not go together, there is no key, no run with
            a gauge, or W&B refuses.
        UnavailableError: wandb-workspaces is not installed.
    """
    entity, _, project = options.place.partition("/")
    if not (entity and project) or "/" in project:
        raise InputError(f"expected entity/project, got {options.place}")
    if options.budgets is None and (options.unit or options.probe_budgets):
        raise InputError("--unit and --probe-budgets have no meaning without --budgets")
    reports()  # says so where it is missing, before W&B is asked for anything
    if not has_wandb_key():
        raise InputError("W&B, which keeps the dashboards, has no key; run `wandb login` first")
    import wandb

    with _refusals(options.place):
        api = wandb.Api()
        keys, verdict = _given_keys(options) or _logged_keys(api, options.place)
        for build in (build_workspace, build_report):
            made = build(entity, project, keys, None if options.no_verdict else verdict)
            made.save()
            print(made.url)  # noqa: T201


@contextmanager
def _refusals(place: str) -> Iterator[None]:
    """Say in one line what W&B has against it: no such project, no permission, no network."""
    import wandb

    try:
        yield
    except InputError:
        raise
    except (wandb.errors.Error, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"W&B did not take {place}: {reason}; check the name, the key and the network"
        ) from error


def _given_keys(options: argparse.Namespace) -> tuple[GaugeKeys, GaugeKeys | None] | None:
    if options.budgets is None:
        return None
    budgets, unit = tuple(options.budgets), options.unit or UNITS[0]
    keys = GaugeKeys(unit=unit, budgets=budgets, probe_budgets=tuple(options.probe_budgets))
    return keys, GaugeKeys(stage="test", unit=unit, budgets=budgets)


def _logged_keys(api: Any, place: str) -> tuple[GaugeKeys, GaugeKeys | None]:
    """The keys of the newest run with a gauge, and those of its verdict if it has one."""
    for run in islice(api.runs(place, order="-created_at"), _NEWEST_RUNS):
        logged = list(run.summary.keys())
        keys = GaugeKeys.from_logged(logged)
        if keys is not None:
            return keys, GaugeKeys.from_logged(logged, stage="test")
    raise InputError(
        f"none of the newest {_NEWEST_RUNS} runs of {place} has a gauge: train with "
        "SparseRobustness first, or say its budgets: --budgets 10 50"
    )


if __name__ == "__main__":
    sys.exit(main())
