"""Tables on stdout: drawn for a person at a terminal, plain aligned columns for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def show(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table.

    Args:
        headers: the names of the columns.
        rows: the cells, as many per row as there are headers.

    Example:
        >>> show(["name", "what"], [["lrp.epsilon", "epsilon rule"], ["gradient", "plain gradient"]])
        name         what
        lrp.epsilon  epsilon rule
        gradient     plain gradient
    """
    if sys.stdout.isatty():
        _draw(headers, rows)
        return
    lines = [list(headers), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a name are no markup
    Console(file=sys.stdout).print(table)
