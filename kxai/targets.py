"""What is explained: a class, one per sample, weights over the outputs, a contrast, a named output, a callable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from keras import ops

from kxai import backend
from kxai.adapters.tf_keras_vis_scores import Averaged, is_score, name_of
from kxai.errors import TargetError, UnknownNameError

PREDICTED = -1  # the index that stands for "the predicted class" inside compiled functions


@final
@dataclass(frozen=True)
class Contrast:
    """Class ``positive`` against class ``negative``: the difference of their logits is explained.

    Args:
        positive, negative: class indices.

    Example:
        >>> Contrast(8, 3)
        Contrast(positive=8, negative=3)
    """

    positive: int
    negative: int


@final
@dataclass(frozen=True)
class OutputSpec:
    """One output of a model: its name and shape (None for sizes that are not known, the batch axis included)."""

    name: str
    shape: tuple[int | None, ...]


@final
@dataclass(frozen=True)
class Part:
    """The target within one output.

    Attributes:
        output: position of the output.
        form: "index" (data: int or (B,) ints, PREDICTED for the predicted class) or "weights" (data: (1 or B, ...)).
        data: the numbers.
    """

    output: int
    form: str
    data: np.ndarray

    def batch(self, start: int, stop: int) -> np.ndarray:
        """Data of the samples ``start`` to ``stop``."""
        if len(self.data) == 1:
            return np.repeat(self.data, stop - start, axis=0)
        return self.data[start:stop]


@final
@dataclass(frozen=True)
class Target:
    """A checked target: parts of outputs, or a callable over all outputs."""

    parts: tuple[Part, ...] = ()
    function: Callable[..., Any] | None = None

    @property
    def form(self) -> tuple[Any, ...]:
        """What distinguishes compiled functions: where the target sits and in which form, not its numbers."""
        return (self.function, *((part.output, part.form) for part in self.parts))

    @property
    def length(self) -> int | None:
        """Number of samples it is given for; None if it serves any number."""
        lengths = {len(part.data) for part in self.parts} - {1}
        return max(lengths) if lengths else None


def resolve(target: Any, outputs: Sequence[OutputSpec], samples: int | None) -> Target:
    """Check a target as a user gives it.

    Args:
        target: None (predicted class), an int, ints (one per sample), a tuple of ints (one unit of an output with
            several axes), floats (weights: one per unit, or one row per sample), a Contrast, the name of an output
            (its predicted class), a dict from output names to any of these, or a callable over the outputs that
            returns one number per sample. A score object of tf-keras-vis, or a list of them, one per output, means
            what it means there.
        outputs: the model's outputs.
        samples: number of samples, None if not known yet.

    Raises:
        TargetError: out of range, of wrong length or type, or ambiguous between several outputs.
        UnknownNameError: no output of that name.
    """
    names = [output.name for output in outputs]
    target = _named_scores(target, names)
    if callable(target):
        return Target(function=target)
    if isinstance(target, str):
        target = {target: None}
    if isinstance(target, Mapping):
        if not target:
            raise TargetError("The target is empty.", expected=f"at least one of {', '.join(names)}", received="{}")
        for name in target:
            if name not in names:
                raise UnknownNameError("output", str(name), names)
        parts = [
            _part(value, outputs[names.index(name)], names.index(name), samples)
            for name, value in target.items()
            if name_of(value) != "InactiveScore"
        ]
        if not parts:
            raise TargetError(
                "Every output is an InactiveScore: nothing is left to explain.", expected="a score for an output"
            )
        return Target(tuple(parts))
    if len(outputs) > 1:
        raise TargetError(
            f"The model has {len(outputs)} outputs; the target does not say which one it means.",
            expected=f"the name of an output, or {{name: target}}, with names {', '.join(names)}",
            received=repr(target),
            fix=f'for example target="{names[0]}" or target={{"{names[0]}": 0}}.',
        )
    return Target((_part(target, outputs[0], 0, samples),))


def _part(target: Any, output: OutputSpec, position: int, samples: int | None) -> Part:
    units = output.shape[-1] if len(output.shape) > 1 else 1
    if is_score(target):
        target = _read_score(target, output)
    if target is None:
        return Part(position, "index", np.array([PREDICTED], "int32"))
    if isinstance(target, Contrast):
        weights = np.zeros((1, *_concrete(output)), "float32")
        weights[..., _index(target.positive, units, output)] += 1
        weights[..., _index(target.negative, units, output)] -= 1
        return Part(position, "weights", weights)
    if isinstance(target, tuple) and len(output.shape) > 2 and all(isinstance(i, (int, np.integer)) for i in target):
        return Part(position, "weights", _unit(target, output))
    try:
        array = np.asarray(backend.to_numpy(target) if not isinstance(target, (list, tuple)) else target)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise TargetError(
            f"The target for output {output.name!r} is neither an index nor weights.",
            expected="None, int, ints, floats, a Contrast, an output name, a dict of these, or a callable",
            received=f"{target!r} ({type(target).__name__})",
        )
    if array.dtype.kind in "iu":
        return Part(position, "index", _indices(array, units, output, samples))
    return Part(position, "weights", _weights(array, output, samples))


def _named_scores(target: Any, names: list[str]) -> Any:
    """Scores of tf-keras-vis by output, or as a callable; other targets as they are."""
    scores = list(target) if isinstance(target, (list, tuple)) else [target]
    if not scores or not all(map(is_score, scores)):
        return target
    if len(scores) != len(names):
        raise TargetError(
            "There is not one score per output.",
            expected=f"{len(names)}, for {', '.join(names)}",
            received=f"{len(scores)}",
        )
    if len(scores) == 1 and not name_of(scores[0]):
        return Averaged(scores[0])
    return dict(zip(names, scores, strict=True))


def _read_score(score: Any, output: OutputSpec) -> Any:
    """A score object as the target that it stands for: class indices, or weights."""
    kind = name_of(score)
    if kind == "CategoricalScore":
        indices = score.indices[0] if len(score.indices) == 1 else list(score.indices)
        return indices if len(output.shape) < 3 else _averages(np.atleast_1d(indices), output)
    if kind == "BinaryScore" and tuple(output.shape[1:]) == (1,):
        signs = np.where(np.asarray(score.target_values), 1.0, -1.0)
        return signs if len(signs) == 1 else signs[:, None]
    raise TargetError(
        f"A {type(score).__name__} does not apply to output {output.name!r}.",
        expected="a CategoricalScore, or for an output of one unit a BinaryScore",
        received=f"{type(score).__name__} for outputs of shape {output.shape}",
        fix="give a callable over all outputs that returns one number per sample.",
    )


def _averages(indices: np.ndarray, output: OutputSpec) -> np.ndarray:
    """Weights of units that are averaged over all positions of an output with several axes."""
    shape = _concrete(output)
    weights = np.zeros((len(indices), *shape), "float32")
    for row, index in zip(weights, indices, strict=True):
        row[..., _index(int(index), shape[-1], output)] = 1 / np.prod(shape[:-1])
    return weights


def _indices(array: np.ndarray, units: int | None, output: OutputSpec, samples: int | None) -> np.ndarray:
    if array.ndim > 1 or (array.ndim == 1 and samples is not None and len(array) != samples):
        raise TargetError(
            f"The target for output {output.name!r} has the wrong length.",
            expected=f"one class index, or one per sample ({samples})",
            received=f"integers of shape {array.shape}",
            fix="integers are class indices; give weights over the outputs as floats.",
        )
    for index in np.atleast_1d(array):
        _index(int(index), units, output)
    return np.atleast_1d(array).astype("int32")


def _index(index: int, units: int | None, output: OutputSpec) -> int:
    if units is not None and not 0 <= index < units:
        raise TargetError(
            f"The target is not a unit of output {output.name!r}.",
            expected=f"an index from 0 to {units - 1}",
            received=f"{index}",
            fix="give no target: there is one unit, of a classifier that of class 1." if units == 1 else "",
        )
    return index


def _concrete(output: OutputSpec) -> tuple[int, ...]:
    if any(size is None for size in output.shape[1:]):
        raise TargetError(
            f"Output {output.name!r} has a size that is not fixed; this kind of target needs it to be.",
            expected="an int, None or a callable",
            received=f"output shape {output.shape}",
        )
    return tuple(size for size in output.shape[1:] if size is not None)


def _unit(target: tuple[Any, ...], output: OutputSpec) -> np.ndarray:
    shape = _concrete(output)
    if len(target) != len(shape) or not all(0 <= i < size for i, size in zip(target, shape, strict=False)):
        raise TargetError(
            f"The target is not a unit of output {output.name!r}.",
            expected=f"{len(shape)} indices below {shape}",
            received=repr(target),
        )
    weights = np.zeros((1, *shape), "float32")
    weights[0][target] = 1
    return weights


def _weights(array: np.ndarray, output: OutputSpec, samples: int | None) -> np.ndarray:
    shape = tuple(output.shape[1:])
    rows = array[None] if array.ndim == len(shape) else array
    fits = rows.ndim == len(shape) + 1 and all(w in (None, s) for s, w in zip(rows.shape[1:], shape, strict=True))
    if not fits or (samples is not None and len(rows) not in (1, samples)):
        raise TargetError(
            f"The weights for output {output.name!r} have the wrong shape.",
            expected=f"{shape}, or one such row per sample ({samples}, ...)",
            received=f"floats of shape {array.shape}",
            fix="floats are weights over the outputs; give class indices as integers.",
        )
    if not np.isfinite(rows).all():
        raise TargetError("The target's weights are not finite.", received="NaN or infinity")
    return rows.astype("float32")


def weights_of(form: str, data: Any, output: Any) -> tuple[Any, Any]:
    """Inside a compiled function: (weights over the output, what was chosen) for one part of a target.

    Args:
        form, data: of the part, for the samples of this batch.
        output: tensor (B, ..., C).
    """
    if form == "weights":
        return ops.cast(data, output.dtype), data
    if len(output.shape) == 1:
        return ops.ones_like(output), ops.zeros_like(data)
    best = ops.cast(ops.argmax(output, axis=-1), "int32")
    given = ops.reshape(data, (-1, *(1,) * (len(output.shape) - 2)))
    chosen = ops.where(given == PREDICTED, best, given)
    return ops.one_hot(chosen, output.shape[-1], dtype=output.dtype), chosen
