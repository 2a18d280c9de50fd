"""One line on the terminal that says what is being done: for a person who waits, and nothing for anyone else."""

from __future__ import annotations

import shutil
import sys


def status(text: str = "") -> None:
    """Replace the line; no text wipes it. Nothing is written where stderr is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
