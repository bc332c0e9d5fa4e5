"""Attack whole data sets, keep a record of every sample, and make tables and figures of them."""

from sztrain.evaluation.measurement import Measurement, measure_robustness

__all__ = ["Measurement", "measure_robustness"]
