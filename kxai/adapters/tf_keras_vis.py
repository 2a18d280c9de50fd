"""Gradient ascent on inputs by tf-keras-vis, without what it would do to a model or to global random numbers."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np
from keras import ops

from kxai.errors import MissingDependencyError, NumericalError

VERSION = "0.8.7"  # the one that the extra "actmax" installs


@final
@dataclass(frozen=True)
class Variable:
    """One input that is optimised, in units in which its range is -1 to 1.

    Attributes:
        name: of the model's input.
        start: values before the first step, ``(count, ...)``, floating point, in [-1, 1].
        total_variation: weight of the total variation, for images ``(count, height, width, channels)``; 0: none.
        l2_norm: weight of the mean square; 0: none.
        jitter: largest shift along every axis but the first and the last, under which it is scored; 0: none.
    """

    name: str
    start: np.ndarray
    total_variation: float = 0.0
    l2_norm: float = 0.0
    jitter: int = 0


def require() -> Any:
    """The package's module of activation maximisation.

    Raises:
        MissingDependencyError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module("tf_keras_vis.activation_maximization")
    except ImportError as error:
        raise MissingDependencyError(
            "Activation maximisation needs the package tf-keras-vis, which cannot be imported.",
            expected=f"tf-keras-vis {VERSION}",
            received=str(error),
            fix='pip install "kxai[actmax]"',
        ) from error


def version() -> str:
    """The package's version."""
    return importlib.metadata.version("tf-keras-vis")


def ascend(
    score: Callable[[list[Any]], Any],
    variables: Sequence[Variable],
    *,
    steps: Iterator[int],
    num_steps: int,
    learning_rate: float,
    seed: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Maximise ``score - regularisation`` with Adam; before every step the values are clipped to [-1, 1].

    Args:
        score: one tensor per variable -> ``(count,)``, differentiable.
        variables: what is optimised.
        steps: advanced once per step, such as a progress bar.
        num_steps: how many, >= 1.
        learning_rate: of Adam, in the variables' units.
        seed: of the random shifts.

    Returns:
        The last values, in [-1, 1], and the scores ``(num_steps, count)`` before each step.

    Raises:
        MissingDependencyError: the package is not installed. NumericalError: a value is not finite.
    """
    package = require()
    rng = np.random.default_rng(seed)

    def shifted(values: list[Any]) -> Any:
        return score([_shifted(x, variable.jitter, rng) for x, variable in zip(values, variables, strict=True)])

    record = _Record(steps)
    # One optimizer per call, for it remembers; with a name, for Keras counts those that have none.
    optimizer = keras.optimizers.Adam(learning_rate, name="kxai_ascent")
    found = package.ActivationMaximization(_Model(tuple(map(_Tensor.of, variables)), shifted))(
        lambda output: output,
        seed_input=[variable.start for variable in variables],
        input_range=[(-1.0, 1.0)] * len(variables),
        input_modifiers=[[_clipped] for _ in variables],
        regularizers=[_regularizers(variable) for variable in variables],
        steps=num_steps,
        optimizer=optimizer,
        callbacks=[record],
        # An input that has no influence stays.
        unconnected_gradients="zero",
    )
    values = [np.asarray(value) for value in found]
    if len(record.scores) != num_steps or not all(np.isfinite(part).all() for part in (*values, *record.scores)):
        raise NumericalError(
            "Activation maximisation did not come to an end.",
            expected=f"{num_steps} steps with finite numbers",
            received=f"{len(record.scores)} steps, or NaN or infinity",
            fix="is model(x) finite for inputs in input_range? The variable TF_KERAS_VIS_MAX_STEPS must not be set.",
        )
    return values, np.stack(record.scores)


@final
@dataclass(frozen=True)
class _Tensor:
    """What the package reads of ``model.inputs``."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    @classmethod
    def of(cls, variable: Variable) -> _Tensor:
        return cls(variable.name, (None, *variable.start.shape[1:]), variable.start.dtype.name)


@final
@dataclass(frozen=True)
class _Model:
    """What the package reads of a model: it never sees the user's own."""

    inputs: tuple[_Tensor, ...]
    score: Callable[[list[Any]], Any]
    outputs: tuple[None, ...] = (None,)
    layers: tuple[()] = ()

    def __call__(self, inputs: list[Any], training: bool) -> Any:
        return self.score(inputs)


@final
@dataclass(eq=False)
class _Record:
    """A callback of the package."""

    steps: Iterator[int]
    scores: list[np.ndarray] = field(default_factory=list)

    def on_begin(self, **_: Any) -> None:
        pass

    def __call__(self, step: int, values: Any, gradients: Any, scores: list[Any], *_: Any, **__: Any) -> None:
        self.scores.append(np.asarray(scores[0]))
        next(self.steps, None)

    def on_end(self) -> None:
        next(self.steps, None)  # past the last step, where a bar takes itself away


def _clipped(values: Any) -> Any:
    return ops.clip(values, -1.0, 1.0)


def _shifted(values: Any, reach: int, rng: np.random.Generator) -> Any:
    """What is scored; the values stay where they are. The package's own Jitter moves the values themselves, further and
    further, by NumPy's global random numbers."""
    if not reach:
        return values
    axes = tuple(range(1, len(values.shape) - 1))
    return ops.roll(values, tuple(int(n) for n in rng.integers(-reach, reach + 1, len(axes))), axes)


def _regularizers(variable: Variable) -> list[Any]:
    regularizers: list[Any] = []
    if variable.total_variation:
        module = importlib.import_module("tf_keras_vis.activation_maximization.regularizers")
        regularizers.append(module.TotalVariation2D(variable.total_variation))
    if variable.l2_norm:
        regularizers.append(_MeanSquare(variable.l2_norm))
    return regularizers


@final
@dataclass(frozen=True)
class _MeanSquare:
    """``weight * mean(u^2)`` per sample; unlike the package's Norm, it has a derivative at 0."""

    weight: float
    name: str = "mean square"

    def __call__(self, values: Any) -> Any:
        return self.weight * ops.mean(ops.square(values), axis=tuple(range(1, len(values.shape))))
