"""Texts from files: names of classes and of columns, tokens; and classes by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kxai.errors import LoadError, TargetError, UnknownNameError
from kxai.files import existing

T = TypeVar("T")


def read_labels(path: str) -> list[str]:
    """Reads the names of the classes, in order.

    Args:
        path: a ``.json`` file (a list of names, or an object from index to name as text or, as Keras' ImageNet
            index has it, to a list that ends with the name), or a text file with one name per line.

    Returns:
        The names.

    Raises:
        LoadError: the file is missing or is neither.
    """
    file = existing(path, "label file")

    def read(text: str) -> list[str]:
        if file.suffix != ".json":
            return text.splitlines()
        names = json.loads(text)
        if isinstance(names, dict):
            names = [names[str(index)] for index in range(len(names))]
        names = [name[-1] if isinstance(name, list) else name for name in names]
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError("not a list of names")
        return names

    expected = "a JSON list of names, a JSON object from '0', '1', ... to names, or text with a name per line"
    return _read(file, read, "does not name classes", expected)


def read_tokens(path: str) -> list[list[str]]:
    """Reads the tokens of texts.

    Args:
        path: a ``.json`` file, a list of lists of texts; or a text file with one line per sample and blanks between
            tokens.

    Returns:
        The tokens per sample.

    Raises:
        LoadError: the file is missing or is neither.
    """
    file = existing(path, "token file")

    def read(text: str) -> list[list[str]]:
        if file.suffix != ".json":
            return [line.split() for line in text.splitlines()]
        found = json.loads(text)
        if not isinstance(found, list) or not all(isinstance(one, list) for one in found):
            raise ValueError("not a list of lists")
        if not all(isinstance(token, str) for one in found for token in one):
            raise ValueError("tokens that are not text")
        return found

    expected = "a JSON list of lists of texts, or text with a line per sample"
    return _read(file, read, "holds no tokens", expected)


def _read(file: Path, read: Callable[[str], T], wrong: str, expected: str) -> T:
    try:
        return read(file.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        received = f"{type(error).__name__}: {error}"
        raise LoadError(f"{file} {wrong}.", expected=expected, received=received) from error


def target(text: str | None, labels: list[str] | None) -> int | None:
    """Reads ``--target``: an index, or the name of a label.

    Args:
        text: the argument; None for the predicted class.
        labels: the names of the classes, or None.

    Returns:
        The index, or None.

    Raises:
        TargetError: a name without labels, or a name that several classes have.
        UnknownNameError: a name that no class has.

    Example:
        >>> target("7", None), target("cat", ["dog", "cat"]), target(None, None)
        (7, 1, None)
    """
    if text is None:
        return None
    if text.removeprefix("-").isdecimal():
        return int(text)
    if labels is None:
        raise TargetError(
            f"The target {text!r} is a name, but the classes have no names.",
            expected="an index, or a name together with --labels",
            received="no --labels",
            fix="add --labels FILE.",
        )
    found = [index for index, name in enumerate(labels) if name == text]
    if not found:
        raise UnknownNameError("label", text, set(labels))
    if len(found) > 1:
        raise TargetError(
            f"Several classes are named {text!r}.",
            expected="a target that is one class",
            received=f"the classes {', '.join(map(str, found))}",
            fix="give the index.",
        )
    return found[0]


def label(index: int, labels: list[str] | None) -> str:
    """Names a class.

    Args:
        index: of the class.
        labels: the names of the classes, or None.

    Returns:
        Its label, or the index as text if there are no labels.

    Raises:
        TargetError: there are labels, but none for this class.

    Example:
        >>> label(1, ["dog", "cat"]), label(1, None)
        ('cat', '1')
    """
    if labels is None:
        return str(index)
    if not 0 <= index < len(labels):
        raise TargetError(
            f"The class {index} has no label.",
            expected="one label per output unit",
            received=f"{len(labels)} labels",
            fix="give the label file that belongs to this model.",
        )
    return labels[index]
