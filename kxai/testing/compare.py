"""What the checks have in common: failures that name the check, the case, what was expected and what came."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from kxai import nest


def require(condition: bool, check: str, case: str, *, expected: str, received: str) -> None:
    """Raise AssertionError unless ``condition`` holds.

    Args:
        condition: what must be true.
        check: what was checked, in words.
        case: the model, node or argument it was checked on.
        expected, received: for the message.

    Example:
        >>> require(2 > 1, "order", "two numbers", expected="2 > 1", received="not so")
    """
    if not condition:
        raise AssertionError(f"{check} [{case}]\n  Expected: {expected}\n  Received: {received}")


def require_frozen(value: Any, attribute: str, *, expected: str) -> None:
    """Raise AssertionError unless setting an attribute is refused.

    Args:
        value: a dataclass instance.
        attribute: the name to set.
        expected: what the value should be, for the message.

    Example:
        >>> from kxai.rules import Epsilon
        >>> require_frozen(Epsilon(), "epsilon", expected="a frozen rule")
    """
    try:
        setattr(value, attribute, None)
        frozen = False
    except dataclasses.FrozenInstanceError:
        frozen = True
    require(frozen, "frozen value", repr(value), expected=expected, received="attributes can be set")


def require_close(check: str, case: str, expected: Any, received: Any, tolerance: float = 1e-5) -> None:
    """Raise AssertionError unless two nests of arrays are equal up to rounding.

    Args:
        check, case: for the message.
        expected, received: nests of arrays; differences count relative to the largest magnitude of each array.
        tolerance: largest relative difference.

    Example:
        >>> require_close("sum", "1 + 1", np.array([2.0]), np.array([1.0]) + 1)
    """
    shapes = nest.describe(expected), nest.describe(received)
    require(shapes[0] == shapes[1], check, case, expected=f"shapes {shapes[0]}", received=f"shapes {shapes[1]}")
    for left, right in zip(nest.leaves(expected), nest.leaves(received), strict=True):
        left, right = np.asarray(left, "float64"), np.asarray(right, "float64")
        scale = max(float(np.abs(left).max(initial=0.0)), 1e-6)
        difference = np.abs(left - right)
        worst = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), difference.shape)
        require(
            bool(difference[worst] <= tolerance * scale),
            check,
            case,
            expected=f"{left[worst]:.9g} at {tuple(map(int, worst))} (up to {tolerance * scale:.2g})",
            received=f"{right[worst]:.9g}",
        )


def require_finite(check: str, case: str, arrays: Any) -> None:
    """Raise AssertionError if a nest of arrays holds NaN or infinity.

    Args:
        check, case: for the message.
        arrays: the nest.

    Example:
        >>> require_finite("finite", "ones", [np.ones(3)])
    """
    for array in nest.leaves(arrays):
        bad = int(np.size(array) - np.isfinite(array).sum())
        require(bad == 0, check, case, expected="finite numbers", received=f"{bad} of {np.size(array)} are not")


@contextlib.contextmanager
def during(check: str, case: str) -> Iterator[None]:
    """Turn whatever is raised inside into an AssertionError that names the check and the case.

    Args:
        check, case: for the message.

    Example:
        >>> with during("explain", "toy"):
        ...     pass
    """
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        require(False, check, case, expected="no exception", received=f"{type(error).__name__}: {error}")


def another(value: Any) -> Any:
    """A second value of a hyperparameter that is a boolean or a number.

    Args:
        value: the first.

    Example:
        >>> another(True), another(0.25)
        (False, 1.0)
    """
    return not value if isinstance(value, bool) else 2 * value + 0.5 if isinstance(value, float) else 2 * value + 1
