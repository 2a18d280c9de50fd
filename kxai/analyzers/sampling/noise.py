"""SmoothGrad and its relatives: what another method says around the input."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar, final

import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.analyzer import Analyzer, shown
from kxai.analyzers.sampling.base import MakeWalk, SamplingAnalyzer, Walk
from kxai.analyzers.sampling.calls import Calls
from kxai.analyzers.sampling.either import along, cast, difference, dtype_of, positive, take
from kxai.analyzers.sampling.fields import AnalyzerField, Clean, Field, RecordedField, TensorField
from kxai.arguments import check_flags, check_integer, check_number
from kxai.composites import Plan
from kxai.errors import ArgumentError, InputError
from kxai.targets import Target

A = TypeVar("A", bound="NoiseAnalyzer")


class NoiseWalk(Walk):
    """Inputs with Gaussian noise.

    Args:
        values: what noise is added to, (samples, ...) each.
        deviations: per array its standard deviation, (samples,).
        keys: of the random numbers, (samples,).
        count: points per sample.
        base: of the explanation, where the results are averaged.
    """

    def __init__(self, values: list[Any], deviations: list[Any], keys: Any, count: int, base: Any) -> None:
        self.weights, self.base = np.full(count, 1 / count), base * 0
        self._values, self._deviations, self._keys = values, deviations, keys

    def at(self, samples: Any, points: Any) -> list[Any]:
        keys, found = take(self._keys, samples), []
        for stream, (values, deviation) in enumerate(zip(self._values, self._deviations, strict=True)):
            x = take(values, samples)
            point = backend.normal(keys, points, x.shape[1:], dtype_of(x), stream)
            point *= along(take(deviation, samples), x)
            point += x
            found.append(point)
        return found


@final
class MeanWalk(NoiseWalk):
    """The mean."""

    def __init__(self, values: list[Any], deviations: list[Any], keys: Any, count: int, base: Any) -> None:
        super().__init__(values, deviations, keys, count, base)
        self.base = base


@final
class SquareWalk(NoiseWalk):
    """The mean of the squares."""

    def counted(self, samples: Any, points: Any, results: list[Any], first: list[Any]) -> list[Any]:
        return [cast(x, "float64") ** 2 for x in results]


@final
class VarianceWalk(NoiseWalk):
    """The mean of the squares, minus the square of the mean."""

    sums = 2
    # Taken relative to the first result, equal results have no variance, not even by rounding.
    relative = True

    def counted(self, samples: Any, points: Any, results: list[Any], first: list[Any]) -> list[Any]:
        moved = [difference(x, y) for x, y in zip(results, first, strict=True)]
        return [*moved, *(x**2 for x in moved)]

    def finish(self, totals: list[Any]) -> list[Any]:
        half = len(totals) // 2
        # Rounding may leave less than nothing.
        return [positive(squares - mean**2) for mean, squares in zip(totals[:half], totals[half:], strict=True)]


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
        check_number("noise", noise, least=0)
        check_flags(absolute=absolute)
        check_integer("num_samples", num_samples)
        check_integer("seed", seed, least=0)
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

    def bind(self: A, model: Any) -> A:
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
        self._check_numbers(specs)
        field = AnalyzerField(self._base, specs, target, count, size)
        return field, specs, field.resolved

    def _recorded_field(self, specs: Any, target: Any) -> tuple[TensorField, Any, Target]:
        if self._base is None:
            return super()._recorded_field(specs, target)
        self._check_numbers(specs)
        field = RecordedField(self._base, specs, target)
        return field, specs, field.resolved

    def _check_numbers(self, specs: Any) -> None:
        whole = [spec for spec in tree.flatten(specs) if "float" not in spec.dtype]
        if whole:
            raise InputError(
                f"Input {', '.join(repr(spec.name) for spec in whole)} holds token ids or other integers, and noise "
                "would make them something else.",
                expected="inputs of real numbers, or a model as base and a layer whose output holds them",
                received=", ".join(f"{spec.name}: {spec.dtype}" for spec in whole),
                fix=f"{type(self).__name__}(model, layer=...) adds noise to the output of the embedding.",
            )

    def _walks(self, moved: Any, inputs: Any, count: int | None) -> MakeWalk:
        statistic, noise, samples = self._statistic(), float(self._noise), int(self._num_samples)

        def walk(field: Field, clean: Clean, calls: Calls) -> NoiseWalk:
            deviations = [noise * (ops.ones_like(x) if self._absolute else x) for x in map(_range, clean.values)]
            keys = backend.keys(self._seed, clean.inputs)
            return statistic(clean.values, calls.given(deviations), calls.given(keys), samples, clean.base)

        return walk


def _range(values: Any) -> Any:
    """max - min of each sample."""
    flat = ops.reshape(values, (ops.shape(values)[0], -1))
    return ops.max(flat, axis=1) - ops.min(flat, axis=1)


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
