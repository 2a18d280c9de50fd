"""Checks of arguments that many methods have."""

from __future__ import annotations

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


def check_count(name: str, value: object, counted: str) -> None:
    """Raise ArgumentError unless an argument is a whole number from 1 on.

    Args:
        name: of the argument.
        value: what was given.
        counted: what there is this number of, for the message.

    Example:
        >>> check_count("batch_size", 32, "samples")
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"{name} counts {counted}.", expected="an int >= 1", received=repr(value))


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
        expected = ", ".join(map(repr, known)) + (f" or {also}" if also else "")
        raise ArgumentError(f"{name} is out of range.", expected=expected, received=repr(value))
