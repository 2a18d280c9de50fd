"""Mistakes that are told before the work and not after it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kxai.cli.quiet import library
from kxai.errors import UnknownNameError
from kxai.files import existing

if TYPE_CHECKING:
    import keras


def inputs(arguments: argparse.Namespace) -> None:
    """Whether all inputs are there.

    Args:
        arguments: the parsed arguments.

    Raises:
        LoadError: one is missing.
    """
    for path in arguments.inputs:
        existing(path, "input")


def folder(arguments: argparse.Namespace) -> None:
    """Whether --output can be a folder; that it is a file is a usage error.

    Args:
        arguments: the parsed arguments.
    """
    output = Path(arguments.output)
    if output.exists() and not output.is_dir():
        arguments.usage_error(f"--output: expected a folder, {output} is a file")


def spared(arguments: argparse.Namespace, files: Iterable[Path]) -> None:
    """Whether what is written leaves alone what is read; it is a usage error if not.

    Args:
        arguments: the parsed arguments.
        files: what would be written.
    """
    read = [arguments.model, arguments.weights, arguments.labels, arguments.fit, *arguments.inputs]
    read += [value for _, value in arguments.set if isinstance(value, str)]
    known = {Path(path).resolve() for path in read if path is not None}
    for file in files:
        if file.resolve() in known:
            arguments.usage_error(f"--output: {file} would be overwritten, and it is read; choose another folder")


def methods(names: Iterable[str]) -> None:
    """Whether there are such methods.

    Args:
        names: of methods.

    Raises:
        UnknownNameError: there is none of that name.
    """
    known = library().methods()
    for name in names:
        if name not in known:
            raise UnknownNameError("method", name, known, fix="'kxai methods' describes all of them.")


def labels(names: Sequence[str] | None, model: keras.Model) -> None:
    """Whether the names are those of this model's classes.

    Args:
        names: of the classes, or None.
        model: the model.

    Raises:
        ArgumentError: no output has as many units.
    """
    from kxai.reports.samples import check_labels

    if names is not None:
        check_labels(names, [tuple(output.shape) for output in model.outputs])
