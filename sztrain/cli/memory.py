"""Memory of this process: what belongs to a program that runs for long, and not to a library."""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library keep memory that is freed, for its next use, until the process ends.

    glibc returns large blocks to the system at once, and the system clears every page of a block
    that it hands out. Activations are such blocks, freed and asked for again in every pass on a
    CPU: at a batch of 512, M1 spends more time on their pages than on its convolutions.

    Returns:
        Whether there is a C library that can be told so; elsewhere nothing changes.

    Reference:
        `mallopt(3) <https://man7.org/linux/man-pages/man3/mallopt.3.html>`_.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
