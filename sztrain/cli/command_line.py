"""The command line as Hydra reads it, before it does."""

import re
from argparse import Namespace

# It alone knows which words are values of its flags.
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException


def hydra_flags(args: list[str]) -> Namespace:
    """Hydra's flags, and as ``overrides`` all words that are none.

    Example:
        >>> hydra_flags(["-m", "seed=0,1"]).overrides
        ['seed=0,1']
    """
    return get_args_parser().parse_known_args(args)[0]


def quoted(text: str) -> str:
    r"""Text as Hydra's grammar takes it between quotes: a backslash is one, but before a quote.

    Example:
        >>> print(quoted('lr=0.1'), quoted('a"b'), quoted("a\\b"), quoted("a\\"))
        "lr=0.1" "a\"b" "a\b" "a\\"
    """

    def escaped(found: re.Match[str]) -> str:
        backslashes, quote = found.groups()
        return 2 * backslashes + (f"\\{quote}" if quote else "")

    return '"' + re.sub(r'(\\*)("|$)', escaped, text) + '"'


def given_overrides(args: list[str]) -> list[Override]:
    """The overrides among the words of a command; none where Hydra will refuse one of them.

    Example:
        >>> [override.key_or_group for override in given_overrides(["-m", "seed=0,1", "net=M1"])]
        ['seed', 'net']
        >>> given_overrides(["a=b=c"])
        []
    """
    try:
        return OverridesParser.create().parse_overrides(hydra_flags(args).overrides)
    except HydraException:
        return []
