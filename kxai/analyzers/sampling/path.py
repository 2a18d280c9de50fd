"""Integrated and expected gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from keras import ops

from kxai import backend
from kxai.analyzers.sampling import grids
from kxai.analyzers.sampling.base import MakeWalk, SamplingAnalyzer
from kxai.analyzers.sampling.calls import Calls
from kxai.analyzers.sampling.fields import Clean, GradientField
from kxai.analyzers.sampling.walks import (
    Draw,
    PathWalk,
    counted,
    resolve_baselines,
    straight,
    warn_of_equals,
)
from kxai.arguments import check_integer
from kxai.references import Background, Inputs


@final
class IntegratedGradients(SamplingAnalyzer):
    """Integrated gradients: ``(x - r)`` times the mean gradient on the straight path from a baseline r to x.

    ``R_i = (x_i - r_i) sum_k w_k df/dx_i (r + a_k (x - r))``, with points a_k and weights w_k of a grid. It adds up to
    ``f(x) - f(r)`` up to the error of the grid, which ``explanation.residual`` shows; ``explanation.base`` is f(r).
    Several baselines are averaged. All inputs of a model move together.

    Args:
        model: a built Keras model.
        baseline: r, in the units of the input (or of the output of ``layer``): a number, an array, one per sample, a
            ``kxai.references.Background``, a callable; or ``kxai.references.Inputs`` of any of these, which are inputs
            of the model also where ``layer`` is given. Default 0.
        num_steps: points per baseline, >= 1, default 50.
        grid: "midpoint" (default), "left", "right", "trapezoid" or "gauss_legendre".
        layer: where the path runs, if not through the inputs: a path, glob or Keras layer, the name of an input, or
            several in a list; relevance is shaped like their outputs. For token ids: the embedding.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError, UnknownNameError: an argument does not fit. InputError: integer inputs, without ``layer``.

    Warns:
        KxaiWarning: the baseline of a sample is the sample itself.

    Example:
        >>> import keras, numpy as np
        >>> x = keras.Input((2,))
        >>> model = keras.Model(x, x[:, :1] * x[:, 1:])
        >>> explanation = IntegratedGradients(model).explain(np.array([[3., 4.]]))
        >>> explanation.relevance.round(4), explanation.residual.round(4)
        (array([[6., 6.]], dtype=float32), array([0.]))

    Source: Sundararajan et al. 2017, equation 3.
    """

    def __init__(
        self, model: Any, baseline: Any = 0.0, num_steps: int = 50, grid: str = "midpoint", *, layer: Any = None,
        strip_softmax: bool = True, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer=layer, strip_softmax=strip_softmax, jit=jit)
        self._baseline, self._num_steps, self._grid = baseline, num_steps, grid
        self._points = grids.grid(grid, num_steps)

    @property
    def name(self) -> str:
        return "integrated_gradients"

    @property
    def conserves(self) -> bool:
        return True

    def _walks(self, moved: Any, inputs: Any, count: int | None) -> MakeWalk:
        return straight(self._baseline, self._points, "difference", moved, inputs, count)


@final
class ExpectedGradients(SamplingAnalyzer):
    """Expected gradients (GradientSHAP): integrated gradients with random baselines and random points on the paths.

    ``R = E (x - b) df/dx (b + a (x - b))``, over baselines b and a uniform in [0, 1]; in expectation it adds up to
    ``f(x) - E f(b)``. ``explanation.base`` is the mean of f over all baselines, ``explanation.residual`` shows how far
    the samples are from the expectation. Without that randomness, each baseline with a grid of points, it is
    ``IntegratedGradients(model, kxai.references.Background(baselines))``.

    Args:
        model: a built Keras model.
        baselines: samples (count, ...) to compare with, structured like the model's inputs (or like the outputs of
            ``layer``); or whatever :class:`IntegratedGradients` takes as ``baseline``.
        num_samples: random points per explained sample, >= 1, default 200.
        seed: of the random numbers, which depend on it and on the explained sample alone. Default 0.
        layer: where the paths run, see :class:`IntegratedGradients`.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError, UnknownNameError: an argument does not fit. InputError: integer inputs, without ``layer``.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[2.], [3.]]), np.array([1.])])
        >>> ExpectedGradients(model, np.zeros((5, 2))).explain(np.array([[5., 7.]])).relevance.round(3)
        array([[10., 21.]], dtype=float32)

    Source: Erion et al. 2019, equation 5; Lundberg & Lee 2017 (as GradientSHAP in their library).
    """

    def __init__(
        self, model: Any, baselines: Any, num_samples: int = 200, *, seed: int = 0, layer: Any = None,
        strip_softmax: bool = True, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer=layer, strip_softmax=strip_softmax, jit=jit)
        check_integer("num_samples", num_samples)
        check_integer("seed", seed, least=0)
        self._baselines, self._num_samples, self._seed = baselines, num_samples, seed

    @property
    def name(self) -> str:
        return "expected_gradients"

    @property
    def conserves(self) -> bool:
        return True

    def _walks(self, moved: Any, inputs: Any, count: int | None) -> MakeWalk:
        baselines = resolve_baselines(_background(self._baselines), moved, inputs, count)

        def walk(field: GradientField, clean: Clean, calls: Calls) -> PathWalk:
            found = baselines(field, clean, calls)
            if calls.looks:
                warn_of_equals(clean.values, found)
            drawn = self._drawn(clean, counted(found), calls)
            return PathWalk(clean.values, found, drawn, "difference", field.base(found, clean, calls))

        return walk

    def _drawn(self, clean: Clean, count: int, calls: Calls) -> Draw:
        size = int(self._num_samples)
        numbers = backend.uniform(backend.keys(self._seed, clean.inputs), (2, size))
        which, alphas = ops.cast(ops.floor(numbers[:, 0] * count), "int32"), numbers[:, 1]
        return Draw(*calls.given((which, alphas, np.full(size, 1 / size))))


def _background(baselines: Any) -> Any:
    """Plain arrays are several baselines, as inputs of the model, too."""
    if isinstance(baselines, Inputs):
        return Inputs(_background(baselines.value))
    several = isinstance(baselines, (Mapping, list, tuple)) or getattr(baselines, "ndim", 0) > 0
    return Background(baselines) if several and not isinstance(baselines, Background) else baselines
