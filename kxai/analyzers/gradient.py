"""Gradient methods that one backward pass computes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, final

from keras import ops

from kxai.analyzers.backward import BackwardAnalyzer
from kxai.analyzers.program import Start
from kxai.arguments import check_flags
from kxai.composites import Composite
from kxai.composites.presets import deconvnet, gradient, guided_backprop
from kxai.reverse import Finish


class GradientAnalyzer(BackwardAnalyzer):
    """A method that starts with 1 at the explained output.

    For token ids the result is the sum over the embedding axis.

    Args:
        model: a built Keras model.
        strip_softmax: explain the logit before a final softmax or sigmoid (True, the default), or the output itself.
        jit: compile with XLA. Default False.
    """

    def __init__(self, model: Any, *, strip_softmax: bool = True, jit: bool = False) -> None:
        super().__init__(model, jit=jit)
        check_flags(strip_softmax=strip_softmax)
        self._strip_softmax = strip_softmax

    def composite_table(self) -> Composite:
        return gradient()

    def start(self) -> Start:
        return Start.ONE

    def strips_heads(self) -> bool:
        return self._strip_softmax


@final
class Gradient(GradientAnalyzer):
    """The gradient of the explained logit with respect to the input, ``df/dx``, raw and signed.

    Args:
        model: a built Keras model.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[2.], [3.]]), np.array([1.])])
        >>> Gradient(model).explain(np.array([[5., 7.]])).relevance
        array([[2., 3.]], dtype=float32)

    Source: Simonyan et al. 2013 (who display the maximum of the absolute value over channels).
    """

    @property
    def name(self) -> str:
        return "gradient"


@final
class GradientTimesInput(GradientAnalyzer):
    """Gradient times input, ``x df/dx``; adds up to f where f(t x) = t f(x), as in ReLU networks without bias.

    Args:
        model: a built Keras model.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[2.], [3.]]), np.array([1.])])
        >>> GradientTimesInput(model).explain(np.array([[5., 7.]])).relevance
        array([[10., 21.]], dtype=float32)

    Source: Shrikumar et al. 2016.
    """

    @property
    def name(self) -> str:
        return "gradient_x_input"

    @property
    def conserves(self) -> bool:
        return True

    def finish(self) -> Finish:
        return lambda value, signal: value * signal


@final
class Sensitivity(GradientAnalyzer):
    """Sensitivity analysis: the squared gradient, ``(df/dx)^2``; positive, not conservative.

    Args:
        model: a built Keras model.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[2.], [3.]]), np.array([1.])])
        >>> Sensitivity(model).explain(np.array([[5., 7.]])).relevance
        array([[4., 9.]], dtype=float32)

    Source: Montavon et al. 2017, section 1.
    """

    @property
    def name(self) -> str:
        return "sensitivity"

    def finish(self) -> Finish:
        return lambda value, signal: ops.square(signal)


class _SignalAnalyzer(GradientAnalyzer):
    """Gradient methods that change the signal at ReLUs."""

    def __init__(
        self, model: Any, *, other_activations: str = "error", strip_softmax: bool = True, jit: bool = False
    ) -> None:
        super().__init__(model, strip_softmax=strip_softmax, jit=jit)
        self._other_activations = other_activations
        self._table = self._composite(other_activations)

    @staticmethod
    @abstractmethod
    def _composite(other_activations: str) -> Composite:
        """The composite, for a choice of what to do at other activations."""

    def composite_table(self) -> Composite:
        return self._table


@final
class GuidedBackprop(_SignalAnalyzer):
    """Guided backprop: at a ReLU, ``R_in = 1[n > 0] pos(R_out)``. A visualisation, nearly the same for all classes.

    Args:
        model: a built Keras model.
        other_activations: at activations that are no ReLU: "error" (default), or "gradient", their plain derivative.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        RuleError: the model has other activations than ReLUs and ``other_activations`` is "error".

    Example:
        >>> import keras, numpy as np
        >>> relu = keras.layers.Dense(3, activation="relu", use_bias=False)
        >>> model = keras.Sequential([keras.Input((1,)), relu, keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[1., -2., 1.]]), np.array([[1.], [1.], [-1.]])])
        >>> GuidedBackprop(model).explain(np.array([[2.]])).relevance
        array([[1.]], dtype=float32)

    Source: Springenberg et al. 2015.
    """

    @staticmethod
    def _composite(other_activations: str) -> Composite:
        return guided_backprop(other_activations)

    @property
    def name(self) -> str:
        return "guided_backprop"


@final
class Deconvnet(_SignalAnalyzer):
    """Deconvnet: at a ReLU, ``R_in = pos(R_out)``, whether the unit was active or not.

    Args:
        model: a built Keras model.
        other_activations: at activations that are no ReLU: "error" (default), or "gradient", their plain derivative.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        RuleError: the model has other activations than ReLUs and ``other_activations`` is "error".

    Example:
        >>> import keras, numpy as np
        >>> relu = keras.layers.Dense(3, activation="relu", use_bias=False)
        >>> model = keras.Sequential([keras.Input((1,)), relu, keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[1., -2., 1.]]), np.array([[1.], [1.], [-1.]])])
        >>> Deconvnet(model).explain(np.array([[2.]])).relevance
        array([[-1.]], dtype=float32)

    Source: Zeiler & Fergus 2014.
    """

    @staticmethod
    def _composite(other_activations: str) -> Composite:
        return deconvnet(other_activations)

    @property
    def name(self) -> str:
        return "deconvnet"
