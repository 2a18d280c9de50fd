"""Checks of arguments, in one form: which argument is out of range, what may be given, and what was given."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from kxai.errors import ArgumentError


def check_flags(**flags: object) -> None:
    """Raise ArgumentError unless all of these are True or False: any other value, such as "no", would count as True.

    Args:
        flags: values by the names of the arguments.

    Example:
        >>> check_flags(relu=True, jit=False)
    """
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ArgumentError(f"{name} is a switch.", expected="True or False", received=repr(value))


def check_choice(name: str, value: object, known: Iterable[str], also: str = "") -> None:
    """Raise ArgumentError unless an argument is one of some texts.

    Args:
        name: of the argument.
        value: what was given.
        known: what may be given.
        also: what else may be given, for the message.

    Example:
        >>> check_choice("psi", "layer", ["channel", "layer"])
    """
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise _out_of_range(name, ", ".join(map(repr, known)), also, value)


def check_integer(name: str, value: object, least: int = 1, most: float = math.inf, also: str = "") -> int:
    """Raise ArgumentError unless an argument is an integer within bounds; True and False are none.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that may be given; default 1.
        most: the largest; default: no bound.
        also: what else may be given, for the message.

    Returns:
        The integer, as Python's own.

    Example:
        >>> check_integer("num_steps", 50)
        50
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    bounds = f">= {least}" if most == math.inf else f"in [{least}, {most}]"
    raise _out_of_range(name, f"an integer {bounds}", also, value)


def check_number(
    name: str, value: object, *, least: float | None = None, above: float = -math.inf, most: float | None = None,
    below: float = math.inf, unit: str = "", also: str = "",
) -> float:  # fmt: skip
    """Raise ArgumentError unless an argument is a finite number within bounds; True and False are none.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that may be given; default None: see ``above``.
        above: what is too small, if only just; default: no bound.
        most, below: likewise from above.
        unit: what the number counts, for the message.
        also: what else may be given, for the message.

    Returns:
        The number, as Python's own.

    Example:
        >>> check_number("opacity", 0.5, least=0, most=1), check_number("epsilon", 1e-6, above=0)
        (0.5, 1e-06)
    """
    number = _float(value)
    low = number > above if least is None else number >= least
    if low and (number < below if most is None else number <= most):
        return number
    if most is None and below == math.inf:
        expected = f"{unit or 'a finite number'} {f'> {above:g}' if least is None else f'>= {least:g}'}"
    else:
        left, right = f"({above:g}" if least is None else f"[{least:g}", f"{below:g})" if most is None else f"{most:g}]"
        expected = f"{unit or 'a number'} in {left}, {right}"
    raise _out_of_range(name, expected, also, value)


def _float(value: object) -> float:
    """What is no number becomes NaN, which is within no bounds."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _out_of_range(name: str, expected: str, also: str, value: object) -> ArgumentError:
    return ArgumentError(
        f"{name} is out of range.", expected=f"{expected} or {also}" if also else expected, received=repr(value)
    )
