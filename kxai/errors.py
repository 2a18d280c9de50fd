"""What can go wrong, in kxai's own words.

Every message says what happened, what was expected, what was received and how to fix it. Each class also
derives from the built-in exception that plain Python code would raise, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KxaiError(Exception):
    """Base class of all errors that kxai raises on purpose.

    Args:
        what: one sentence, what happened.
        expected: what would have been right, if that can be said.
        received: what came instead.
        fix: what the caller can do about it.
    """

    def __init__(self, what: str, *, expected: str = "", received: str = "", fix: str = "") -> None:
        self.expected = expected
        parts = [what]
        for label, text in (("Expected", expected), ("Received", received), ("Fix", fix)):
            if text:
                parts.append(f"{label}: {text}")
        super().__init__("\n  ".join(parts))


class ArgumentError(KxaiError, ValueError):
    """A hyperparameter is outside its range or contradicts another one."""


class InputError(KxaiError, ValueError):
    """The data to explain does not fit the model (shape, dtype, structure, NaN, empty batch)."""


class TargetError(KxaiError, ValueError):
    """The target does not name something that the model outputs."""


class ModelError(KxaiError, ValueError):
    """The model cannot be read (not built, quantised, not a Keras model)."""


class RuleError(KxaiError, ValueError):
    """A node of the model has no rule, or a rule that does not apply to it."""


class LoadError(KxaiError, ValueError):
    """A file is not a model, or not an explanation, that kxai can read."""


class ExportError(KxaiError, ValueError):
    """A method, or a model, cannot be written as a graph that runs by itself."""


class MissingDependencyError(KxaiError, ImportError):
    """An optional package is needed and not installed."""


class ServingError(KxaiError, RuntimeError):
    """A server cannot be reached, does not answer in time, or refuses.

    Attributes:
        code: HTTP's status (``"404"``) or gRPC's (``"NOT_FOUND"``); ``"UNREADABLE"`` where the reply is none;
            ``"CLOSED"`` where the client was closed; empty where no reply came.
    """

    def __init__(self, what: str, *, code: str = "", expected: str = "", received: str = "", fix: str = "") -> None:
        super().__init__(what, expected=expected, received=received, fix=fix)
        self.code = code


class UnknownNameError(KxaiError, LookupError):
    """A method, composite or node name that does not exist; the message lists near matches."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, fix: str = "") -> None:
        known = sorted(known)
        folded = {one.casefold(): one for one in known}
        near = [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, n=5, cutoff=0.5)]
        shown = ", ".join(known[:40]) + (", ..." if len(known) > 40 else "")
        super().__init__(
            f"Unknown {kind} {name!r}.",
            expected=f"did you mean {', '.join(near)}?" if near else f"one of {shown}",
            fix=fix,
        )


class NumericalError(KxaiError, ArithmeticError):
    """A result is NaN or infinite."""


class KxaiWarning(UserWarning):
    """Something the user should know about a result that is nevertheless returned."""
