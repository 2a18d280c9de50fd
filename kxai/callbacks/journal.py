"""Where the numbers and pictures of a training are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from kxai import backend, files
from kxai.callbacks.methods import word


@final
class Journal:
    """Files in one folder; those for TensorBoard are opened when something is written and closed at the end of a run.

    Args:
        folder: the folder, made when something is written.
        formats: of "tensorboard" and "png".
    """

    def __init__(self, folder: Path, formats: tuple[str, ...]) -> None:
        self._folder = folder
        self._formats = formats
        self._events: backend.Summaries | None = None

    def numbers(self, numbers: Mapping[str, float], step: int) -> None:
        """Write numbers, for TensorBoard.

        Args:
            numbers: by tag.
            step: where they lie on the axis.
        """
        if "tensorboard" in self._formats:
            self._opened().scalars(numbers, step)

    def picture(self, png: bytes, method: str, name: str, step: int, file: str, note: str) -> None:
        """Write a picture.

        Args:
            png: the content of its file.
            method: what it is of.
            name: which of the model's inputs, where there are several; else empty.
            step: where it lies on the axis.
            file: how the name of its file ends.
            note: shown with it.
        """
        if "png" in self._formats:
            path = self._folder / word(method) / f"{word(name)}{'-' if name else ''}{file}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, lambda stream: stream.write(png))
        if "tensorboard" in self._formats:
            self._opened().image(f"{method}/{name or 'relevance'}", png, step, note)

    def close(self) -> None:
        """Closes what is open."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def __reduce__(self) -> tuple:
        return Journal, (self._folder, self._formats)  # nothing is open in a copy

    def _opened(self) -> backend.Summaries:
        if self._events is None:
            self._events = backend.Summaries(self._folder)
        return self._events
