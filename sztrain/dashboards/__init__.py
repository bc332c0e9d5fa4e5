"""Dashboards of Weights & Biases as code: ``python -m sztrain.dashboards entity/project``."""

from sztrain.dashboards.build import build_report, build_workspace

__all__ = ["build_report", "build_workspace"]
