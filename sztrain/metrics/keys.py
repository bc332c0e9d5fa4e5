"""Names under which the figures of l0 robustness are logged."""

from sztrain.errors import require_in
from sztrain.types import UNITS, Unit


def measure_key(measure: str, unit: Unit, budget: int | None = None) -> str:
    """A measure that depends on the count, such as ``robust_acc_px@24``.

    Args:
        measure: its name.
        unit: what l0 and the budget count; pixels append ``_px``.
        budget: the budget k at which it was taken; ``None``: it has none.

    Raises:
        InputError: ``unit`` is unknown.

    Example:
        >>> measure_key("median_l0", "features"), measure_key("robust_acc", "pixels", 24)
        ('median_l0', 'robust_acc_px@24')
    """
    require_in("unit", unit, UNITS)
    suffix = "_px" if unit == "pixels" else ""
    return f"{measure}{suffix}" if budget is None else f"{measure}{suffix}@{budget}"
