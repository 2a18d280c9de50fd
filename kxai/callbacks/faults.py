"""What goes wrong beside a training stops it only if that is wanted."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import final

from kxai.arguments import check_choice
from kxai.errors import KxaiWarning


@final
class Faults:
    """Raises errors, or turns them into warnings: one per kind, with the cause.

    Args:
        on_error: "warn" or "raise".

    Raises:
        ArgumentError: ``on_error`` is something else.
    """

    def __init__(self, on_error: str) -> None:
        check_choice("on_error", on_error, ("warn", "raise"))
        self._on_error = on_error
        self._said: set[Hashable] = set()

    def forget(self) -> None:
        """From now on everything is said once more."""
        self._said.clear()

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Inside, an error becomes a warning if that is wanted; what follows the block goes on.

        Args:
            what: what is done inside, the subject of the sentence.
        """
        try:
            yield
        except Warning:
            raise  # somebody has made errors of warnings
        except Exception as error:
            if self._on_error == "raise":
                raise
            self.say((what, type(error)), f"{what} failed; training goes on. {type(error).__name__}: {error}")

    def say(self, kind: Hashable, text: str) -> None:
        """Warn, once per kind.

        Args:
            kind: what the warning is about.
            text: the warning.
        """
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(text, KxaiWarning, stacklevel=3)
