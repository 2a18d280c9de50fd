"""SmoothGrad and its relatives: what another method says around the input."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, final

import numpy as np
from keras import tree

from kxai.analyzers.analyzer import Analyzer, shown
from kxai.analyzers.sampling import grids
from kxai.analyzers.sampling.base import MakeWalk, SamplingAnalyzer, Walk, weighted_sum
from kxai.analyzers.sampling.fields import AnalyzerField, Arrays, Clean, Field
from kxai.arguments import check_flags
from kxai.composites import Plan
from kxai.errors import ArgumentError, InputError
from kxai.seeds import check_seed, generator
from kxai.targets import Target


class NoiseWalk(Walk):
    """Inputs with Gaussian noise.

    Args:
        clean: the batch.
        noise: standard deviation, absolute or as a fraction of each sample's range.
        absolute: which of the two.
        count: points per sample.
        seed: of the random numbers.
    """

    def __init__(self, clean: Clean, noise: float, absolute: bool, count: int, seed: int) -> None:
        self.count, self.like, self.base = count, clean.values, np.zeros(len(clean.rows))
        self._clean, self._noise, self._absolute, self._seed = clean, noise, absolute, seed
        self._weights = np.full(count, 1 / count)
        self._random: list[np.random.Generator] = []

    def put(self, sample: int, start: int, stop: int, out: Arrays) -> None:
        if start == 0:
            own = [array[sample] for array in self._clean.inputs]
            self._random = [generator(self._seed, own, stream) for stream in range(len(out))]
        for random, values, array in zip(self._random, self.like, out, strict=True):
            x = values[sample]
            random.standard_normal(dtype=array.dtype, out=array)
            array *= self._noise if self._absolute else self._noise * (x.max() - x.min())
            array += x

    def fold(self, sample: int, start: int, stop: int, results: Arrays) -> Arrays:
        return [weighted_sum(self._weights[start:stop], array) for array in results]


@final
class MeanWalk(NoiseWalk):
    """The mean."""

    def __init__(self, clean: Clean, *arguments: Any) -> None:
        super().__init__(clean, *arguments)
        self.base = clean.base


@final
class SquareWalk(NoiseWalk):
    """The mean of the squares."""

    def fold(self, sample: int, start: int, stop: int, results: Arrays) -> Arrays:
        return [_squares(self._weights[start:stop], array) for array in results]


@final
class VarianceWalk(NoiseWalk):
    """The mean of the squares, minus the square of the mean."""

    _first: Arrays

    def fold(self, sample: int, start: int, stop: int, results: Arrays) -> Arrays:
        weights = self._weights[start:stop]
        # Taken relative to the first result, equal results have no variance, not even by rounding.
        if start == 0:
            self._first = [array[0].astype(np.float64) for array in results]
        results = [array - first for array, first in zip(results, self._first, strict=True)]
        return [*(weighted_sum(weights, array) for array in results), *(_squares(weights, array) for array in results)]

    def finish(self, totals: Arrays) -> Arrays:
        half = len(totals) // 2
        pairs = zip(totals[:half], totals[half:], strict=True)
        # Rounding may leave less than nothing.
        return [np.maximum(squares - mean**2, 0) for mean, squares in pairs]


def _squares(weights: np.ndarray, results: np.ndarray) -> np.ndarray:
    return weighted_sum(weights, np.square(results, dtype=np.float64))


class NoiseAnalyzer(SamplingAnalyzer):
    """Statistics of another method's results at inputs with Gaussian noise.

    Args:
        base: a built Keras model (then the gradient is the method), or any analyzer.
        noise: standard deviation as a fraction of max(x) - min(x) of each sample (and input), >= 0. Default 0.15.
        num_samples: noisy inputs per sample, >= 1, default 50.
        absolute: whether ``noise`` is the standard deviation itself. Default False.
        seed: of the random numbers, which depend on it and on the sample alone. Default 0.
        layer: for a model as base: where noise is added and the gradient taken, see :class:`IntegratedGradients`.
    """

    def __init__(
        self, base: Any, noise: float = 0.15, num_samples: int = 50, *, absolute: bool = False, seed: int = 0,
        layer: Any = None,
    ) -> None:  # fmt: skip
        other = base if isinstance(base, Analyzer) else None
        super().__init__(base if other is None else other.model, layer=layer)
        self._base, self._noise, self._num_samples = other, noise, num_samples
        self._absolute, self._seed = absolute, seed
        if not isinstance(noise, (int, float, np.number)) or isinstance(noise, bool) or not 0 <= noise < np.inf:
            raise ArgumentError("The noise is no standard deviation.", expected="a number >= 0", received=repr(noise))
        check_flags(absolute=absolute)
        grids.check_count("num_samples", num_samples, "noisy inputs per sample")
        check_seed(seed)
        if other is not None and layer is not None:
            raise ArgumentError(
                "Another analyzer explains the inputs, so that is where noise is added.",
                expected="layer= with a model as base",
                received=f"layer={layer!r} with {other!r}",
            )

    @abstractmethod
    def _statistic(self) -> type[NoiseWalk]:
        """What is made of the results."""

    @property
    def granularity(self) -> str:
        return "value" if self._base is None else self._base.granularity

    def bind(self, model: Any) -> Analyzer:
        base = model if self._base is None else self._base.bind(model)
        return type(self)(base, **self._portable())

    def __repr__(self) -> str:
        base = self._model.name if self._base is None else self._base
        return f"{type(self).__name__}({base!r}{shown(self.hyperparameters())})"

    def plan(self, inputs: Any = None) -> Plan:
        return super().plan(inputs) if self._base is None else self._base.plan(inputs)

    def config(self) -> dict[str, Any]:
        if self._base is None:
            return super().config()
        base = self._base.config()
        return {**super().config(), "rules": base.get("rules", []), "base": base}

    def _field(self, specs: Any, target: Any, count: int | None, size: int) -> tuple[Field, Any, Target]:
        if self._base is None:
            return super()._field(specs, target, count, size)
        whole = [spec for spec in tree.flatten(specs) if "float" not in spec.dtype]
        if whole:
            raise InputError(
                f"Input {', '.join(repr(spec.name) for spec in whole)} holds token ids or other integers, and noise "
                "would make them something else.",
                expected="inputs of real numbers, or a model as base and a layer whose output holds them",
                received=", ".join(f"{spec.name}: {spec.dtype}" for spec in whole),
                fix=f"{type(self).__name__}(model, layer=...) adds noise to the output of the embedding.",
            )
        field = AnalyzerField(self._base, specs, target, count, size)
        return field, specs, field.resolved

    def _walks(self, moved: Any, inputs: Any, count: int | None) -> MakeWalk:
        statistic = self._statistic()
        settings = (float(self._noise), bool(self._absolute), int(self._num_samples), int(self._seed))
        return lambda field, clean, size: statistic(clean, *settings)


@final
class SmoothGrad(NoiseAnalyzer):
    """SmoothGrad: the mean of a method's results at noisy inputs, ``mean_k R(x + e_k)``, e_k normal.

    The target is that of the clean input, and so is ``explanation.score``. The mean does not add up to it: whatever
    ``explanation.residual`` says, the method is not complete.

    Args:
        base: a built Keras model (then the gradient is averaged), or any analyzer, such as ``kxai.LRP(model)``.
        noise: standard deviation as a fraction of max(x) - min(x) of each sample (and input), >= 0. Default 0.15.
        num_samples: noisy inputs per sample, >= 1, default 50.
        absolute: whether ``noise`` is the standard deviation itself. Default False.
        seed: of the random numbers, which depend on it and on the sample alone. Default 0.
        layer: for a model as base: where noise is added and the gradient taken; for token ids: the embedding. See
            :class:`IntegratedGradients`. Default: the inputs.

    Raises:
        ArgumentError, UnknownNameError: an argument does not fit. InputError: integer inputs, without ``layer``.

    Example:
        >>> import keras, numpy as np
        >>> x = keras.Input((1,))
        >>> model = keras.Model(x, x * x)
        >>> SmoothGrad(model, noise=0.5, num_samples=10000, absolute=True).explain(np.array([[3.]])).relevance.round(1)
        array([[6.]], dtype=float32)

    Source: Smilkov et al. 2017, section 3.
    """

    @property
    def name(self) -> str:
        return "smoothgrad"

    def _statistic(self) -> type[NoiseWalk]:
        return MeanWalk


@final
class SmoothGradSquared(NoiseAnalyzer):
    """SmoothGrad-squared: the mean of the squares of a method's results at noisy inputs, ``mean_k R(x + e_k)^2``.

    Args:
        base: a built Keras model (then the gradient is squared), or any analyzer.
        noise: standard deviation as a fraction of max(x) - min(x) of each sample (and input), >= 0. Default 0.15.
        num_samples: noisy inputs per sample, >= 1, default 50.
        absolute: whether ``noise`` is the standard deviation itself. Default False.
        seed: of the random numbers, which depend on it and on the sample alone. Default 0.
        layer: for a model as base: where noise is added and the gradient taken, see :class:`SmoothGrad`.

    Raises:
        ArgumentError, UnknownNameError: an argument does not fit. InputError: integer inputs, without ``layer``.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[2.], [3.]]), np.array([1.])])
        >>> SmoothGradSquared(model).explain(np.array([[5., 7.]])).relevance
        array([[4., 9.]], dtype=float32)

    Source: Hooker et al. 2019, section 4.2.
    """

    @property
    def name(self) -> str:
        return "smoothgrad_squared"

    def _statistic(self) -> type[NoiseWalk]:
        return SquareWalk


@final
class VarGrad(NoiseAnalyzer):
    """VarGrad: the variance of a method's results at noisy inputs, ``mean_k R_k^2 - (mean_k R_k)^2``.

    Args:
        base: a built Keras model (then the gradient varies), or any analyzer.
        noise: standard deviation as a fraction of max(x) - min(x) of each sample (and input), >= 0. Default 0.15.
        num_samples: noisy inputs per sample, >= 1, default 50.
        absolute: whether ``noise`` is the standard deviation itself. Default False.
        seed: of the random numbers, which depend on it and on the sample alone. Default 0.
        layer: for a model as base: where noise is added and the gradient taken, see :class:`SmoothGrad`.

    Raises:
        ArgumentError, UnknownNameError: an argument does not fit. InputError: integer inputs, without ``layer``.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> VarGrad(model).explain(np.array([[5., 7.]])).relevance
        array([[0., 0.]], dtype=float32)

    Source: Adebayo et al. 2018, section 3.2; Hooker et al. 2019, section 4.2.
    """

    @property
    def name(self) -> str:
        return "vargrad"

    def _statistic(self) -> type[NoiseWalk]:
        return VarianceWalk
