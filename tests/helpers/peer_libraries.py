"""Which libraries the attacks of other libraries need, and what that means for their tests."""

from importlib.util import find_spec

import pytest

LIBRARIES = {
    **dict.fromkeys(["AdvLibSigmaZero", "FMN", "PDPGD", "VFGA"], ("adv_lib",)),
    **dict.fromkeys(["BB", "BBadv"], ("foolbox", "numba")),
    "EAD": ("foolbox",),
    "SparseFool": ("torchattacks",),
}


def missing_for(name):
    """The libraries that an attack needs and this environment has not."""
    return [library for library in LIBRARIES.get(name, ()) if find_spec(library) is None]


def marks_of(name):
    """Skip an attack by name where its library is missing; slow is what numba has to compile."""
    missing = missing_for(name)
    marks = [pytest.mark.skip(f"{name} needs {' and '.join(missing)}")] if missing else []
    return [*marks, pytest.mark.slow] if "numba" in LIBRARIES.get(name, ()) else marks
