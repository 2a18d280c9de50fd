"""Layer classes that stay one node because somebody said what they are: a rule, or a kind."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any, final

from kxai.graph.classify import own_class
from kxai.graph.graph import Kind


@final
@dataclass(frozen=True)
class Registration:
    """What is known of a layer class: the rule for its calls (then they are OPAQUE), or their kind."""

    rule: Any = None
    kind: Kind | None = None


_LOCK = threading.Lock()
# Weak, so that a class that nobody uses any more can go.
_TABLE: weakref.WeakKeyDictionary[type, Registration] = weakref.WeakKeyDictionary()


def put(layer_class: type, registration: Registration) -> None:
    """Remember a class; what was known of it before is replaced."""
    with _LOCK:
        _TABLE[layer_class] = registration


def drop(layer_class: type) -> bool:
    """Forget a class; whether it was known."""
    with _LOCK:
        return _TABLE.pop(layer_class, None) is not None


def names() -> list[str]:
    """The names of all known classes."""
    with _LOCK:
        return [layer_class.__name__ for layer_class in _TABLE]


def registration_of(layer: Any) -> Registration | None:
    """What is known of a layer: of its class, or of the nearest base whose ``call`` it uses unchanged."""
    with _LOCK:
        base = own_class(layer, _TABLE)
        return None if base is None else _TABLE[base]
