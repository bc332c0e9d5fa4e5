"""One page with all of an evaluation, which needs nothing beside itself."""

import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from sztrain.evaluation.tables import Cell
from sztrain.files import write_whole

Printed = tuple[list[str], list[list[Cell]]]


class Picture(NamedTuple):
    """A picture on disk and where it belongs."""

    section: str
    caption: str
    path: Path


def write_report(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, str],
    tables: Mapping[str, Printed],
    pictures: Iterable[Picture],
    config: str,
) -> None:
    """Write ``report.html``: tables with the paper's figures beside ours, and every picture.

    Nothing is fetched when the page is opened: pictures and styles are in it.

    Args:
        path: file to write.
        title: heading of the page.
        facts: what the figures rest on, by name.
        tables: headings and cells by the table's heading, as
            :func:`sztrain.evaluation.tables.printed_table` gives them; empty ones are left out.
        pictures: PNG files; those of one section stand together, in the order given.
        config: the configuration, for whoever wants to repeat it.

    Raises:
        InputError: the page cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "report.html"
        >>> table = (["net", "median"], [[Cell("M1"), Cell("15", "16", "-1")]])
        >>> write_report(
        ...     path, title="M1", facts={}, tables={"Results": table}, pictures=[], config=""
        ... )
        >>> "16 (-1)" in path.read_text()
        True
    """
    sections: dict[str, list[dict[str, str]]] = defaultdict(list)
    for picture in pictures:
        content = base64.b64encode(picture.path.read_bytes()).decode()
        sections[picture.section].append({"caption": picture.caption, "content": content})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files("sztrain.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = environment.from_string(text).render(
        title=title,
        facts=facts,
        tables={heading: table for heading, table in tables.items() if table[1]},
        sections=sections,
        config=config,
    )
    write_whole(path, page)
