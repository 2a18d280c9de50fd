"""What is handed over to be drawn: arrays or explanations, by name or alone, with texts that fit them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from kxai.arguments import check_integer, check_number
from kxai.errors import ArgumentError, InputError


@runtime_checkable
class Explained(Protocol):
    """What pictures read of a :class:`kxai.Explanation`, which is made of what this floor has.

    Example:
        >>> isinstance(np.zeros(3), Explained)
        False
    """

    @property
    def relevance(self) -> Any: ...
    @property
    def score(self) -> np.ndarray: ...
    @property
    def base(self) -> np.ndarray: ...
    @property
    def layers(self) -> Mapping[str, np.ndarray]: ...
    @property
    def absorbed(self) -> Mapping[str, np.ndarray]: ...
    @property
    def config(self) -> Mapping[str, Any]: ...

    def of_input(self, key: str | int | None = None) -> np.ndarray:
        """Returns the relevance of one input."""

    def heatmap(self, input: str | int | None = None, reduce: str = "sum") -> np.ndarray:
        """Returns it without its channels."""


Relevance: TypeAlias = "Mapping[str, np.ndarray | Explained] | np.ndarray | Explained"


def method_of(explanation: Explained, default: str = "") -> str:
    """Names the method of an explanation.

    Args:
        explanation: the explanation.
        default: what is returned if it does not say; default the empty text.

    Returns:
        The name.
    """
    return str(explanation.config.get("method", default))


def heatmaps(given: Relevance) -> dict[str, np.ndarray]:
    """Reads relevance without channels, by the name of the method.

    Args:
        given: a heatmap ``(batch, ...)`` or an explanation, or a dict of these by the name of the method.

    Returns:
        Arrays by name; what has no name is named "".

    Example:
        >>> heatmaps({"lrp": [[1.0, 2.0]]})
        {'lrp': array([[1., 2.]])}
    """
    return _by_name(given, lambda explanation: explanation.heatmap())


def with_channels(given: Relevance) -> dict[str, np.ndarray]:
    """Reads relevance with its channels, by the name of the method.

    Args:
        given: an array ``(batch, ..., channels)`` or an explanation, or a dict of these by the name of the method.

    Returns:
        Arrays by name; what has no name is named "".

    Example:
        >>> list(with_channels(np.zeros((1, 2, 3))))
        ['']
    """
    return _by_name(given, lambda explanation: explanation.of_input())


def _by_name(given: Relevance, read: Any) -> dict[str, np.ndarray]:
    if isinstance(given, Explained):
        given = {method_of(given): given}
    named = given if isinstance(given, Mapping) else {"": given}
    return {str(name): read(one) if isinstance(one, Explained) else _array(one) for name, one in named.items()}


def _array(given: Any) -> np.ndarray:
    """Whole numbers become floats: they may have no negative of their own."""
    if isinstance(given, Mapping):
        raise ArgumentError(
            "This is more than one method's relevance.",
            expected="an array or an explanation",
            received=f"a dict of {', '.join(map(str, given)) or 'nothing'}",
            fix="draw them one by one; kxai.plots.figure, series, logo, text_html and text_terminal compare methods.",
        )
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ArgumentError("Relevance has rows of different lengths.", received=str(error)) from error
    return array.astype(np.float64) if array.dtype.kind in "iub" else array


def one_heatmap(given: np.ndarray | Explained) -> np.ndarray:
    """Reads one method's relevance without channels.

    Args:
        given: a heatmap ``(batch, ...)`` or an explanation.

    Returns:
        The array.

    Raises:
        ArgumentError: it is a dict of several, or no array.

    Example:
        >>> one_heatmap([[1.0]]).shape
        (1, 1)
    """
    return given.heatmap() if isinstance(given, Explained) else _array(given)


def check_finite(values: np.ndarray, what: str) -> None:
    """Refuses what cannot be drawn.

    Args:
        values: array of any shape.
        what: its name.

    Raises:
        InputError: no real numbers, none at all, or NaN or infinity.

    Example:
        >>> check_finite(np.ones(3), "values")
    """
    if values.dtype.kind not in "fiub":
        raise InputError(f"{what} cannot be drawn.", expected="real numbers", received=str(values.dtype))
    if values.size == 0 or not np.isfinite(values).all():
        raise InputError(
            f"{what} cannot be drawn.",
            expected="at least one value, all finite",
            received="no values" if values.size == 0 else "NaN or infinity",
        )


def check_texts(texts: Sequence[str] | None, count: int, what: str, of: str) -> None:
    """Checks that there is one text each.

    Args:
        texts: the texts, or None.
        count: how many are right.
        what: their name.
        of: what each belongs to, such as "sample".

    Raises:
        ArgumentError: there are more or fewer, or it is one text, or they are something else.

    Example:
        >>> check_texts(["a", "b"], 2, "titles", "sample")
    """
    if texts is None:
        return
    listed = isinstance(texts, Collection) and not isinstance(texts, str)
    if not listed or len(texts) != count:
        received = str(len(texts)) if listed else "one text" if isinstance(texts, str) else repr(texts)
        raise ArgumentError(f"{what} do not fit.", expected=f"{count}, one per {of}", received=received)
    odd = next((text for text in texts if not isinstance(text, str)), None)
    if odd is not None:
        raise ArgumentError(f"{what} are no texts.", expected=f"a str per {of}", received=repr(odd))


def check_size(size: float, columns: int = 1) -> None:
    """Checks the measures of a grid.

    Args:
        size: inches, > 0.
        columns: panels in a row, >= 1.

    Raises:
        ArgumentError: they are out of range.

    Example:
        >>> check_size(1.5, 4)
    """
    check_number("size", size, above=0, unit="inches")
    check_integer("columns", columns)


def check_tokens(tokens: Sequence[Sequence[str]], batch: int, steps: int) -> None:
    """Checks that the words of every sample fit its steps.

    Args:
        tokens: per sample a list of words.
        batch: number of samples.
        steps: the most words that a sample can have.

    Raises:
        ArgumentError: they do not.

    Example:
        >>> check_tokens([["a", "b"]], 1, 3)
    """
    for given in (tokens, *(tokens if isinstance(tokens, Collection) else ())):
        if isinstance(given, str) or not isinstance(given, Collection):
            raise ArgumentError(
                "tokens has the wrong structure.", expected="a list of words per sample", received=repr(given)
            )
    if len(tokens) != batch or any(len(words) > steps for words in tokens):
        raise ArgumentError(
            "tokens do not fit.",
            expected=f"{batch} lists of at most {steps} words",
            received=f"{len(tokens)} lists of {[len(words) for words in tokens]} words",
        )
