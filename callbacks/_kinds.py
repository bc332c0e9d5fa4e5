"""Objects of either Lightning, told by the names of their classes."""

from typing import Any


def is_a(thing: Any, name: str) -> bool:
    """Whether a thing's class, or one that it derives from, has this name.

    By its name, as ``pytorch_lightning`` and ``lightning.pytorch`` each have classes of their own.

    Example:
        >>> is_a(True, "int")
        True
    """
    return any(base.__name__ == name for base in type(thing).__mro__)
