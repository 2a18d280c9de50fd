"""Progress over batches: a bar on the terminal for a person who waits, and nothing for anyone else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from kxai.arguments import check_integer
from kxai.errors import ArgumentError

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds that pass before the automatic bar appears."""


def track(
    iterable: Iterable[T], total: int | None = None, description: str = "", verbose: bool | None = None,
    share: Callable[[T], float] = lambda item: 1.0,
) -> Iterator[T]:  # fmt: skip
    """Yields the items of an iterable and shows on stderr how far it is.

    Nothing is ever written when stderr is not a terminal (a pipe, a log file, a notebook). The bar vanishes at
    the end, also when the loop is left early or by an error.

    Args:
        iterable: the items, for example batches.
        total: number of items, >= 0; None takes ``len(iterable)`` where there is one, else the bar shows no end.
        description: text before the bar.
        verbose: True shows the bar at once, False never, None (default) only after one second.
        share: how much of one of ``total`` an item is; default 1.

    Returns:
        An iterator over the same items.

    Raises:
        ArgumentError: ``verbose`` is neither None nor a boolean, or ``total`` is negative.

    Example:
        >>> [2 * batch for batch in track([1, 2, 3], description="explaining")]
        [2, 4, 6]
    """
    if verbose not in (None, True, False):
        raise ArgumentError("verbose is out of range.", expected="None, True or False", received=repr(verbose))
    if total is not None:
        check_integer("total", total, least=0, also="None")
    if verbose is False or not sys.stderr.isatty():
        return iter(iterable)
    if total is None:
        total = len(iterable) if isinstance(iterable, (list, tuple, range)) else None
    return _shown(iterable, total, description, 0.0 if verbose else PATIENCE, share)


def _shown(
    iterable: Iterable[T], total: int | None, description: str, patience: float, share: Callable[[T], float]
) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # The caller's own prints between two items go where the caller sends them: rich redirects neither stream.
    bar = Progress(
        *columns,
        console=Console(file=sys.stderr, force_terminal=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = bar.add_task(description, total=total)
    begin, visible = time.monotonic(), False
    try:
        for item in iterable:
            if not visible and time.monotonic() - begin >= patience:
                bar.start()
                visible = True
            yield item
            bar.advance(task, share(item))
    finally:
        if visible:
            bar.stop()
