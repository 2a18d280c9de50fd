"""What a custom layer computes before its input comes in: tensors made of its weights and of shapes alone.

They are found while the layer is recorded, and computed anew in every run, so that weights stay live.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras
from keras import ops, tree

from kxai.errors import ModelError
from kxai.graph.graph import Kind


@final
@dataclass(frozen=True)
class Place:
    """Where a tensor was seen: the leaf of a recorded call's arguments, or (call None) of what the layer returns."""

    call: int | None
    leaf: int


@final
@dataclass(frozen=True)
class Constants:
    """Tensors that a layer computed from weights and shapes.

    Attributes:
        places: one place per tensor.
        values: the tensors.
        stand_ins: the symbolic tensors that replace them in the recording.
        hidden: whether an operation holds such a tensor where it cannot be replaced.
    """

    places: tuple[Place, ...] = ()
    values: tuple[Any, ...] = ()
    stand_ins: tuple[Any, ...] = ()
    hidden: bool = False

    def replace(self, structure: Any) -> Any:
        """The structure with stand-ins for the tensors."""
        known = dict(zip(map(id, self.values), self.stand_ins, strict=True))
        return tree.map_structure(lambda leaf: known.get(id(leaf), leaf), structure)


@final
@dataclass(frozen=True)
class Repeat:
    """A layer's call that can be recorded again.

    Attributes:
        run: () -> what the layer returns, called on symbolic tensors.
        recording: () -> context that yields a recorder of what happens inside.
    """

    run: Callable[[], Any]
    recording: Callable[[], contextlib.AbstractContextManager[Any]]

    def reading(self, places: Sequence[Place]) -> Callable[..., tuple[Any, ...]]:
        """A function that runs the layer again and returns the tensors at ``places``; its arguments do not matter."""

        def read(*carriers: Any) -> tuple[Any, ...]:
            with self.recording() as recorder:
                outputs = self.run()
                seen = [_arguments(call) for call in _plain(recorder.calls)]
            found = [tree.flatten(outputs) if p.call is None else seen[p.call] for p in places if _within(p, seen)]
            if len(found) < len(places):
                raise ModelError(
                    f"Layer {recorder.path!r} does something else whenever it is called.",
                    fix="let its call depend on its arguments and weights alone.",
                )
            leaves = [leaf[place.leaf] for leaf, place in zip(found, places, strict=True)]
            return tuple(map(_value, leaves))

        return read


def _within(place: Place, seen: Sequence[Any]) -> bool:
    return place.call is None or place.call < len(seen)


def found_in(outputs: Any, calls: Sequence[Any], live: bool) -> Constants:
    """The constants in the calls of a layer and in what it returns; those in the calls are replaced at once.

    Args:
        outputs: what the layer returned.
        calls: what was recorded while it ran.
        live: whether it read a variable: every tensor that it made may then depend on it.
    """
    plain = _plain(calls)
    wanted: dict[int, tuple[Place, Any]] = {}
    for j, x in enumerate(tree.flatten(outputs)):
        if _concrete(x):
            wanted.setdefault(id(x), (Place(None, j), x))
    if live:
        for i, call in enumerate(plain):
            for j, x in enumerate(_arguments(call)):
                # A weight itself is live already.
                if _concrete(x) and not isinstance(x, keras.Variable):
                    wanted.setdefault(id(x), (Place(i, j), x))
    attributes = [x for call in plain for x in _attributes(call)]
    hidden = live and any(_concrete(x) and not isinstance(x, keras.Variable) for x in attributes)
    values = tuple(x for _, x in wanted.values())
    stand_ins = tuple(keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype)) for x in values)
    found = Constants(tuple(place for place, _ in wanted.values()), values, stand_ins, hidden)
    for call in calls:
        call.args, call.kwargs = found.replace(call.args), found.replace(call.kwargs)
    return found


def symbolic(outputs: Any) -> Any:
    """Outputs with symbolic tensors in place of concrete ones: what recording the layer for the first time gave."""

    def stand_in(leaf: Any) -> Any:
        if not _concrete(leaf):
            return leaf
        return keras.KerasTensor(leaf.shape, keras.backend.standardize_dtype(leaf.dtype))

    return tree.map_structure(stand_in, outputs)


def _plain(calls: Sequence[Any]) -> list[Any]:
    return [call for call in calls if call.kind is not Kind.CONSTANT]


def _arguments(call: Any) -> list[Any]:
    leaves: list[Any] = tree.flatten((call.args, call.kwargs))
    return leaves


def _attributes(call: Any) -> list[Any]:
    leaves: list[Any] = [] if call.operation is None else tree.flatten(list(vars(call.operation).values()))
    return leaves


def _value(leaf: Any) -> Any:
    return ops.convert_to_tensor(leaf.value if isinstance(leaf, keras.Variable) else leaf)


def _concrete(leaf: Any) -> bool:
    return not isinstance(leaf, keras.KerasTensor) and (isinstance(leaf, keras.Variable) or ops.is_tensor(leaf))
