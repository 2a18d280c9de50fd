"""What units of an inner layer do on the way: internal influence and conductance."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from kxai.analyzers.sampling import grids
from kxai.analyzers.sampling.base import MakeWalk, SamplingAnalyzer
from kxai.analyzers.sampling.calls import Calls
from kxai.analyzers.sampling.fields import Clean, GradientField
from kxai.analyzers.sampling.walks import Draw, PathWalk, counted, every_baseline, resolve_baselines, straight
from kxai.errors import ArgumentError
from kxai.references import Background


@final
class InternalInfluence(SamplingAnalyzer):
    """Internal influence: the gradient with respect to a layer's output, averaged over inputs.

    ``R_j = E_x' dF/dh_j (h(x'))`` over the distribution of interest: the line from a baseline to the sample, the sample
    alone, or a data set. It measures what a small change of a unit would do, and shares nothing out: it adds up to
    nothing in particular.

    Args:
        model: a built Keras model.
        layer: a path, glob or Keras layer, the name of an input, or several in a list; relevance is shaped like their
            outputs. None: the inputs.
        distribution: "line" (default), "point", or a ``kxai.references.Background`` of the data set's samples; then
            every explained sample chooses a target and has the influence on it over the data set.
        baseline: for "line": where it starts, as :class:`IntegratedGradients` takes it. None (default): 0.
        num_steps: for "line": points, >= 1. None (default): 50.
        grid: for "line": as of :class:`IntegratedGradients`. None (default): "midpoint".
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError, UnknownNameError: an argument does not fit. InputError: integer inputs, for "line".

    Example:
        >>> import keras, numpy as np
        >>> layers = [keras.layers.Dense(2, "relu", name="hidden"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((2,)), *layers])
        >>> model.set_weights([np.eye(2), np.zeros(2), np.array([[2.], [3.]]), np.array([1.])])
        >>> InternalInfluence(model, "hidden").explain(np.array([[5., 7.]])).relevance.round(4)
        array([[2., 3.]], dtype=float32)

    Source: Leino et al. 2018, definition 1.
    """

    def __init__(
        self, model: Any, layer: Any, distribution: Any = "line", baseline: Any = None, num_steps: int | None = None,
        grid: str | None = None, *, strip_softmax: bool = True, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer=layer, strip_softmax=strip_softmax, jit=jit)
        self._distribution, self._baseline, self._num_steps, self._grid = distribution, baseline, num_steps, grid
        known = isinstance(distribution, str) and distribution in ("line", "point")
        if not known and not isinstance(distribution, Background):
            raise ArgumentError(
                "The distribution of interest is not known.",
                expected='"line", "point", or kxai.references.Background(samples)',
                received=repr(distribution),
            )
        line = {"baseline": baseline, "num_steps": num_steps, "grid": grid}
        given = [f"{name}={value!r}" for name, value in line.items() if value is not None]
        if given and not self._between():
            raise ArgumentError(
                "Only a line has a baseline and steps.", expected='distribution="line"', received=", ".join(given)
            )
        self._points = grids.grid("midpoint" if grid is None else grid, 50 if num_steps is None else num_steps)

    @property
    def name(self) -> str:
        return "internal_influence"

    def _inner(self) -> bool:
        return True

    def _between(self) -> str:
        return "" if isinstance(self._distribution, Background) or self._distribution == "point" else "a line of inputs"

    def _walks(self, moved: Any, inputs: Any, count: int | None) -> MakeWalk:
        if self._between():
            baselines = resolve_baselines(0.0 if self._baseline is None else self._baseline, moved, inputs, count)
        else:
            data = self._distribution if isinstance(self._distribution, Background) else 0
            baselines = resolve_baselines(data, moved, inputs, count, "distribution")

        def walk(field: GradientField, clean: Clean, calls: Calls) -> PathWalk:
            found = baselines(field, clean, calls)
            return PathWalk(clean.values, found, self._drawn(counted(found), calls), "", clean.base)

        return walk

    def _drawn(self, count: int, calls: Calls) -> Draw:
        if self._between():
            return every_baseline(count, *self._points, calls)
        end = 0.0 if isinstance(self._distribution, Background) else 1.0
        return every_baseline(count, np.array([end]), np.array([1.0]), calls)


@final
class LayerConductance(SamplingAnalyzer):
    """Layer conductance: integrated gradients of the inputs, as they flow through the units of a layer.

    ``R_j = integral over a in [0, 1] of dF/dh_j dh_j/da`` on the straight path from a baseline r to x, by a grid of
    points, with the exact derivative of h_j along the path. If all of F passes the layer it adds up to
    ``f(x) - f(r)`` up to the error of the grid: ``explanation.residual``; ``explanation.base`` is f(r).

    Args:
        model: a built Keras model.
        layer: a path, glob or Keras layer, the name of an input, or several in a list; relevance is shaped like their
            outputs. None: the inputs, which gives integrated gradients.
        baseline: r, as :class:`IntegratedGradients` takes it, in the units of the inputs. Default 0.
        num_steps: points per baseline, >= 1, default 50.
        grid: "midpoint" (default), "left", "right", "trapezoid" or "gauss_legendre".
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError, UnknownNameError: an argument does not fit. InputError: integer inputs.

    Warns:
        KxaiWarning: the baseline of a sample is the sample itself.

    Example:
        >>> import keras, numpy as np
        >>> layers = [keras.layers.Dense(2, "relu", name="hidden"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((2,)), *layers])
        >>> model.set_weights([np.eye(2), np.zeros(2), np.array([[2.], [3.]]), np.array([1.])])
        >>> LayerConductance(model, "hidden").explain(np.array([[5., 7.]])).relevance.round(4)
        array([[10., 21.]], dtype=float32)

    Source: Dhamdhere et al. 2018, definition 2.
    """

    def __init__(
        self, model: Any, layer: Any, baseline: Any = 0.0, num_steps: int = 50, grid: str = "midpoint", *,
        strip_softmax: bool = True, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer=layer, strip_softmax=strip_softmax, jit=jit)
        self._baseline, self._num_steps, self._grid = baseline, num_steps, grid
        self._points = grids.grid(grid, num_steps)

    @property
    def name(self) -> str:
        return "layer_conductance"

    @property
    def conserves(self) -> bool:
        return True

    def _inner(self) -> bool:
        return True

    def _along(self) -> bool:
        return True

    def _between(self) -> str:
        return "a line of inputs"

    def _walks(self, moved: Any, inputs: Any, count: int | None) -> MakeWalk:
        return straight(self._baseline, self._points, "direction", moved, inputs, count)
