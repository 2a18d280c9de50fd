"""What an input is compared with: references of DeepLIFT and baselines of path methods, besides plain arrays.

Callables are functions of each sample alone: batch size and order do not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import keras
import numpy as np
from keras import ops

from kxai import backend, nest
from kxai.arguments import check_integer, check_number
from kxai.backend import random
from kxai.errors import ArgumentError, ExportError
from kxai.fingerprints import fingerprint
from kxai.seeds import generator
from kxai.shuffles import dinucleotide_shuffle


@final
@dataclass(frozen=True, eq=False)
class Background:
    """Several references for every sample; explanations are averaged over them.

    Args:
        data: array (count, ...) of samples; for a model of several inputs a list or dict of such arrays, of which the
            k-th samples belong together.

    Example:
        >>> import numpy as np
        >>> Background(np.zeros((10, 28, 28, 1)))
        Background(10 samples)
    """

    data: Any

    @cached_property
    def fingerprint(self) -> str:
        """Tells data of other content apart, 12 digits; read once, so that the arrays are not to be changed."""
        return fingerprint(map(backend.to_numpy, nest.leaves(self.data)), 12)

    def __repr__(self) -> str:
        first: Any = self.data
        while isinstance(first, (dict, list, tuple)) and len(first):
            first = next(iter(first.values())) if isinstance(first, dict) else first[0]
        return f"Background({len(first) if getattr(first, 'ndim', 0) else '?'} samples)"


@final
@dataclass(frozen=True, eq=False)
class Inputs:
    """Baselines that are inputs of the model, for methods that change values at an inner layer.

    Args:
        value: an array shaped like one sample, such as padding ids; one per sample; a :class:`Background`; a callable.

    Example:
        >>> import numpy as np
        >>> Inputs(np.array([0, 0, 0]))
        Inputs(value=array([0, 0, 0]))
    """

    value: Any


@final
@dataclass(frozen=True)
class Blur:
    """Every image (volume, sequence), blurred by a Gaussian: what is left when details are missing.

    Sums over neighbours along all axes but the first and the last, weighted by ``exp(-d^2 / (2 sigma^2))`` up to four
    standard deviations; beyond the border the image is mirrored.

    Args:
        sigma: standard deviation in pixels, > 0.

    Raises:
        ArgumentError: ``sigma`` is not positive, or (when used) an input has no spatial axes.

    Example:
        >>> import numpy as np
        >>> Blur(1.0)(np.ones((1, 5, 5, 1)))[0, 2, :, 0]
        array([1., 1., 1., 1., 1.])
    """

    sigma: float

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, above=0)

    def __call__(self, inputs: Any) -> Any:
        """The blurred inputs, arrays or tensors, structured like them."""
        return nest.map_leaves(self._blurred, inputs)

    def _blurred(self, images: Any) -> Any:
        if len(images.shape) < 3:
            raise ArgumentError(
                "There is nothing to blur.",
                expected="(samples, spatial axes..., channels)",
                received=f"{tuple(images.shape)}",
            )
        arrays = isinstance(images, np.ndarray)
        whole = "float" not in keras.backend.standardize_dtype(images.dtype)
        found = images.astype(np.float64) if arrays else ops.cast(images, "float64")
        for axis in range(1, len(images.shape) - 1):
            matrix = self._matrix(int(images.shape[axis]))
            product = (np if arrays else ops).tensordot(found, matrix, axes=(axis, 0))
            found = (np if arrays else ops).moveaxis(product, -1, axis)
        dtype = "float64" if whole else images.dtype
        return found.astype(dtype) if arrays else ops.cast(found, dtype)

    def _matrix(self, size: int) -> np.ndarray:
        """(size, size): what each position of an axis adds to each blurred one."""
        radius = math.ceil(4 * self.sigma)
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / self.sigma) ** 2)
        mirrored = np.pad(np.arange(size), radius, "symmetric")
        matrix = np.zeros((size, size))
        for blurred in range(size):
            np.add.at(matrix[:, blurred], mirrored[blurred : blurred + len(weights)], weights / weights.sum())
        return matrix


@final
@dataclass(frozen=True)
class Uniform:
    """Uniform noise, as references that say nothing.

    The numbers depend on the seed and on the sample alone, not on its place in a batch; a graph draws the same.

    Args:
        low, high: range of the numbers, low < high.
        count: references per sample, >= 1, default 1; explanations are averaged over them.
        seed: >= 0, default 0.

    Raises:
        ArgumentError: the range is empty, or ``count`` or ``seed`` is out of range.

    Example:
        >>> import numpy as np
        >>> Uniform(-1.0, 1.0, count=3)(np.zeros((2, 5))).shape
        (2, 3, 5)
    """

    low: float
    high: float
    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ArgumentError("The range is empty.", expected="low < high", received=f"{self.low}, {self.high}")
        check_integer("count", self.count)
        check_integer("seed", self.seed, least=0)

    def __call__(self, inputs: Any) -> Any:
        """References (samples, count, ...), arrays or tensors, structured like the inputs."""
        tensors = nest.leaves(inputs)
        keys = random.keys(self.seed, tensors)
        streams = iter(range(len(tensors)))

        def noise(values: Any) -> Any:
            share = random.uniform(keys, (self.count, *values.shape[1:]), next(streams))
            drawn = (1 - share) * self.low + share * self.high
            dtype = keras.backend.standardize_dtype(values.dtype)
            drawn = ops.cast(drawn, dtype if "float" in dtype else "float64")
            return backend.to_numpy(drawn) if isinstance(values, np.ndarray) else drawn

        return nest.map_leaves(noise, inputs)


@final
@dataclass(frozen=True)
class DinucleotideShuffle:
    """Shuffled sequences in which every pair of neighbours is as frequent as before: what a genome looks like.

    For one-hot sequences (samples, length, alphabet). Positions that are all zero ("any base") are a symbol of their
    own. The shuffles depend on the seed and on the sample alone.

    Args:
        count: shuffles per sample, >= 1, default 10; explanations are averaged over them.
        seed: >= 0, default 0.

    Raises:
        ArgumentError: ``count`` or ``seed`` is out of range, or (when used) the input is no one-hot sequence.

    Example:
        >>> import numpy as np
        >>> sequence = np.eye(4)[[0, 1, 2, 3, 1, 0, 2]]
        >>> DinucleotideShuffle(count=5)(sequence[None]).shape
        (1, 5, 7, 4)

    Source: Altschul & Erickson 1985.
    """

    count: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("count", self.count)
        check_integer("seed", self.seed, least=0)

    def __call__(self, inputs: Any) -> Any:
        """Shuffles (samples, count, length, alphabet), structured like the inputs."""
        if not backend.is_eager():
            raise ExportError(
                f"{self!r} draws random numbers outside of TensorFlow, so it cannot be part of a graph.",
                expected="arrays, such as a kxai.references.Background of shuffles, or kxai.references.Uniform or Blur",
            )
        return nest.map_leaves(self._shuffled, inputs)

    def _shuffled(self, sequences: np.ndarray) -> np.ndarray:
        one_hot = sequences.ndim == 3 and np.isin(sequences, (0, 1)).all() and (sequences.sum(axis=-1) <= 1).all()
        if not one_hot:
            raise ArgumentError(
                "Only one-hot sequences can be shuffled by pairs of neighbours.",
                expected="(samples, length, alphabet), at most one 1 per position and 0 elsewhere",
                received=f"shape {sequences.shape}, values from {sequences.min():.4g} to {sequences.max():.4g}",
            )
        alphabet = sequences.shape[-1]
        table = np.eye(alphabet + 1, alphabet, dtype=sequences.dtype)  # the last row: no symbol
        symbols = np.where(sequences.any(axis=-1), sequences.argmax(axis=-1), alphabet)
        found = np.empty((len(sequences), self.count, *sequences.shape[1:]), sequences.dtype)
        for row, sequence in enumerate(symbols):
            numbers = generator(self.seed, [sequence])
            for index in range(self.count):
                found[row, index] = table[dinucleotide_shuffle(sequence, numbers)]
        return found


def mean(data: Any) -> Any:
    """The mean sample of some data, a reference in the middle of them.

    Args:
        data: array (count, ...), a list or dict of such arrays, or a ``tf.data.Dataset`` of batches of inputs (or of
            (inputs, ...) tuples), which is read once and never held as a whole.

    Returns:
        One sample, structured like the data, float64.

    Raises:
        ArgumentError: there is no sample.

    Example:
        >>> import numpy as np
        >>> mean(np.array([[1.0, 2.0], [3.0, 6.0]]))
        array([2., 4.])
    """
    count, total = 0, None
    for batch in backend.dataset_batches(data, 1, None) if backend.is_dataset(data) else [data]:
        arrays = nest.map_leaves(np.asarray, batch)
        count += min(len(array) for array in nest.leaves(arrays))
        sums = nest.map_leaves(lambda array: array.sum(axis=0, dtype=np.float64), arrays)
        total = sums if total is None else nest.map_leaves(np.add, total, sums)
    if not count:
        raise ArgumentError("There is no sample to take the mean of.", expected="at least one", received="none")
    return nest.map_leaves(lambda array: array / count, total)
