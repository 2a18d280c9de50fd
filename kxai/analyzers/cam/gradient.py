"""Class activation maps from one forward and one backward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from keras import ops

from kxai.analyzers.cam.base import CAMAnalyzer
from kxai.arguments import check_number
from kxai.composites import Plan
from kxai.errors import RuleError
from kxai.graph.feature_maps import FeatureMap, explained_part
from kxai.graph.graph import Edge, Graph, Kind, Node
from kxai.graph.layout import as_edge, sample_shape

_POOLS = frozenset({"global_average_pool", "mean", "average_pool"})


class WeightedCAM(CAMAnalyzer):
    """A map that is a weighted sum of the channels, ``sum_k alpha_k A_k``; for arguments see :class:`CAMAnalyzer`."""

    @abstractmethod
    def weights(self, activations: Any, gradients: Any) -> Any:
        """alpha, (batch, channels).

        Args:
            activations: A, (batch, positions, channels).
            gradients: of the explained quantity with respect to A.
        """

    def raw(self, activations: Any, gradients: Any) -> Any:
        return weighted(activations, self.weights(activations, gradients))


def weighted(activations: Any, weights: Any) -> Any:
    """``sum_k alpha_k A_k``, (batch, positions).

    Args:
        activations: (batch, positions, channels).
        weights: (batch, channels).
    """
    return ops.sum(activations * weights[:, None], axis=-1)


@final
class CAM(WeightedCAM):
    """Class activation mapping, ``sum_k w_kc A_k``: w is the kernel of the dense layer behind global average pooling.

    Only for networks in which nothing else lies between the map and the logit (dropout and reshaping apart); the bias
    of the dense layer is not shown. All others: :class:`GradCAM`, of which this is the special case, times the number
    of positions.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        relu: whether negative numbers of the map become 0. Default False, as in the paper.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        jit: compile with XLA. Default False.

    Raises:
        RuleError: (by ``explain``) the network is of another kind, or has no feature map.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> CAM(case.model).explain(case.inputs, target=0).heatmap()[0]
        array([[ 2.,  3.],
               [-3.,  2.]], dtype=float32)

    Source: Zhou et al. 2016, Eq. 2.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, relu: bool = False, resize: bool = True, jit: bool = False
    ) -> None:
        super().__init__(model, layer, relu=relu, resize=resize, jit=jit)

    @property
    def name(self) -> str:
        return "cam"

    def maps(self, plan: Plan, explained: Sequence[Edge]) -> tuple[FeatureMap, ...]:
        maps = super().maps(plan, explained)
        part = explained_part(plan.graph, explained)
        for found in maps:
            _check_pooled(part, found)
        return maps

    def weights(self, activations: Any, gradients: Any) -> Any:
        # Behind average pooling the gradient is the kernel over the number of positions.
        return ops.sum(gradients, axis=1)


def _check_pooled(graph: Graph, found: FeatureMap) -> None:
    """Raise unless every way on from a map is: mean over all positions, one affine map, which is explained."""
    waiting: list[tuple[Edge, int]] = [(found.edge, 0)]  # and how much of that lies behind: pooling, affine map
    while waiting:
        edge, passed = waiting.pop()
        if passed == 2 and edge in graph.explained:
            continue
        readers = graph.consumers.get(edge, ())
        steps = [(node, _passed(node, edge, passed, found)) for node in readers]
        wrong = [node for node, after in steps if after is None] or (None,) * (not readers)
        if wrong:
            raise RuleError(
                "CAM is defined for global average pooling and one dense layer behind the feature map.",
                expected=f"{found.path} -> global average pooling -> dense -> logit",
                received=f"behind {graph.producer[edge].path!r}: {wrong[0].path if wrong[0] else 'the output'}",
                fix='use "grad_cam": there the two are the same but for a factor, and it is defined for all networks.',
            )
        waiting += [(node.outputs[0], after) for node, after in steps if after is not None]


def _passed(node: Node, edge: Edge, passed: int, found: FeatureMap) -> int | None:
    """How much lies behind after a node; None if it may not be there."""
    if passed == 0:
        return 1 if node.op in _POOLS and _averages(node, found) else None
    if passed == 1 and node.kind is Kind.AFFINE and node.inputs[0] is edge:
        return 2
    return passed if node.kind is Kind.ROUTE and len(node.inputs) == 1 else None


def _averages(node: Node, found: FeatureMap) -> bool:
    """Whether a node takes the mean of each channel over all positions: tried out."""
    sizes = [size or 1 for size in sample_shape(found.edge)]
    x = ops.convert_to_tensor(np.random.default_rng(0).uniform(size=sizes).astype(found.edge.dtype))
    means = ops.convert_to_numpy(ops.mean(found.arranged(x), axis=1)).ravel()
    pooled = ops.convert_to_numpy(node.run(as_edge(x, found.edge))[0]).ravel()
    return pooled.shape == means.shape and bool(np.allclose(pooled, means, rtol=1e-3))


@final
class GradCAM(WeightedCAM):
    """Grad-CAM: ``relu(sum_k alpha_k A_k)``, alpha the mean of the gradient over the positions of channel k.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        relu: whether negative numbers of the map become 0. Default True, as in the paper.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> GradCAM(case.model, relu=False).explain(case.inputs, target=0).heatmap()[0]
        array([[ 0.5 ,  0.75],
               [-0.75,  0.5 ]], dtype=float32)

    Source: Selvaraju et al. 2017, Eqs. 1 and 2.
    """

    @property
    def name(self) -> str:
        return "grad_cam"

    def weights(self, activations: Any, gradients: Any) -> Any:
        return ops.mean(gradients, axis=1)


class _StabilizedCAM(WeightedCAM):
    """Weights with a denominator that a small number keeps off 0."""

    def __init__(
        self, model: Any, layer: Any = None, *, epsilon: float, relu: bool = True, resize: bool = True,
        strip_softmax: bool = True, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer, relu=relu, resize=resize, strip_softmax=strip_softmax, jit=jit)
        check_number("epsilon", epsilon, above=0)
        self._epsilon = epsilon


@final
class GradCAMPlusPlus(_StabilizedCAM):
    """Grad-CAM++: ``alpha_k = sum a_k relu(g_k)``, ``a = g^2 / (2 g^2 + g^3 sum A_k + epsilon)``.

    Derived for the exponential of the logit, whose value cancels in a; the gradients g are those of the logit itself,
    so that large logits do no harm.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        epsilon: keeps the denominator off 0, > 0, default 1e-6.
        relu: whether negative numbers of the map become 0. Default True, as in the paper.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: epsilon is out of range.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> GradCAMPlusPlus(case.model).explain(case.inputs, target=0).heatmap()[0].round(3)
        array([[0.5, 1. ],
               [0. , 0.5]], dtype=float32)

    Source: Chattopadhyay et al. 2018, Eqs. 10 and 19.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, epsilon: float = 1e-6, relu: bool = True, resize: bool = True,
        strip_softmax: bool = True, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer, epsilon=epsilon, relu=relu, resize=resize, strip_softmax=strip_softmax, jit=jit)

    @property
    def name(self) -> str:
        return "grad_cam_plus_plus"

    def weights(self, activations: Any, gradients: Any) -> Any:
        # Negative gradients do not count: with them, and channels that are negative, the denominator could vanish.
        g = ops.relu(gradients)
        total = ops.sum(activations, axis=1, keepdims=True)
        denominator = 2 * ops.square(g) + total * g**3 + self._epsilon
        return ops.sum(ops.square(g) / _off_zero(denominator, self._epsilon) * g, axis=1)


@final
class XGradCAM(_StabilizedCAM):
    """XGrad-CAM: ``alpha_k = sum g_k A_k / sum A_k``; the map before its ReLU adds up to ``sum g A``.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        epsilon: added to the denominator, with its sign, > 0, default 1e-7.
        relu: whether negative numbers of the map become 0. Default True, as in the authors' code.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: epsilon is out of range.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> XGradCAM(case.model, relu=False).explain(case.inputs, target=0).heatmap()[0].round(3)
        array([[ 0.5 ,  0.75],
               [-0.75,  0.5 ]], dtype=float32)

    Source: Fu et al. 2020, Eq. 8.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, epsilon: float = 1e-7, relu: bool = True, resize: bool = True,
        strip_softmax: bool = True, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer, epsilon=epsilon, relu=relu, resize=resize, strip_softmax=strip_softmax, jit=jit)

    @property
    def name(self) -> str:
        return "xgrad_cam"

    def weights(self, activations: Any, gradients: Any) -> Any:
        total = ops.sum(activations, axis=1)
        sign = ops.where(total < 0, -ops.ones_like(total), ops.ones_like(total))
        return ops.sum(gradients * activations, axis=1) / (total + self._epsilon * sign)


def _off_zero(denominator: Any, epsilon: float) -> Any:
    """The denominator where it is not next to 0, else epsilon with its sign."""
    sign = ops.where(denominator < 0, -ops.ones_like(denominator), ops.ones_like(denominator))
    return ops.where(ops.abs(denominator) < epsilon, sign * epsilon, denominator)


@final
class HiResCAM(CAMAnalyzer):
    """HiResCAM: ``sum_k g_k A_k`` at every position; behind the map linear, it adds up to the logit without its bias.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        relu: whether negative numbers of the map become 0. Default False, as in the paper.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> e = HiResCAM(case.model).explain(case.inputs, target=0)
        >>> e.heatmap()[0].sum(), e.score[0]
        (np.float32(1.0), np.float32(1.0))

    Source: Draelos & Carin 2020, Eq. 4.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, relu: bool = False, resize: bool = True, strip_softmax: bool = True,
        jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer, relu=relu, resize=resize, strip_softmax=strip_softmax, jit=jit)

    @property
    def name(self) -> str:
        return "hires_cam"

    def raw(self, activations: Any, gradients: Any) -> Any:
        return ops.sum(gradients * activations, axis=-1)


@final
class LayerCAM(CAMAnalyzer):
    """LayerCAM: ``relu(sum_k relu(g_k) A_k)``; also for early layers, whose maps are fine.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        relu: whether negative numbers of the map become 0. Default True, as in the paper.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> LayerCAM(case.model).explain(case.inputs, target=0).heatmap()[0]
        array([[0.5, 1. ],
               [0. , 0.5]], dtype=float32)

    Source: Jiang et al. 2021, Eqs. 4 to 6.
    """

    @property
    def name(self) -> str:
        return "layer_cam"

    def raw(self, activations: Any, gradients: Any) -> Any:
        return ops.sum(ops.relu(gradients) * activations, axis=-1)


@final
class EigenCAM(CAMAnalyzer):
    """Eigen-CAM: the activations, centred per channel, projected on their first principal component.

    Whatever is explained, the map is the same: it shows what the layer sees, not what speaks for the target. A
    component has no sign; the map has the one that makes its largest magnitude positive (if two are equally large, the
    one that goes with the sum of the activations).

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        relu: whether negative numbers of the map become 0. Default False: the projection itself.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        jit: compile with XLA. Default False.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> EigenCAM(case.model).explain(case.inputs, target=0).heatmap()[0].round(3)
        array([[-0.924, -0.383],
               [ 2.23 , -0.924]], dtype=float32)

    Source: Muhammad & Yeasin 2020, on centred activations.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, relu: bool = False, resize: bool = True, jit: bool = False
    ) -> None:
        super().__init__(model, layer, relu=relu, resize=resize, jit=jit)

    @property
    def name(self) -> str:
        return "eigen_cam"

    def raw(self, activations: Any, gradients: Any) -> Any:
        # The Gram matrix has the squares of the singular values: double precision keeps them apart.
        a = ops.cast(activations, "float64")
        a = a - ops.mean(a, axis=1, keepdims=True)
        transposed = ops.transpose(a, (0, 2, 1))
        if a.shape[1] <= a.shape[2]:
            values, vectors = ops.linalg.eigh(ops.matmul(a, transposed))
            projected = vectors[..., -1] * ops.sqrt(ops.relu(values[..., -1:]))
        else:
            _, vectors = ops.linalg.eigh(ops.matmul(transposed, a))
            projected = ops.matmul(a, vectors[..., -1:])[..., 0]
        high, low = ops.max(projected, axis=1, keepdims=True), -ops.min(projected, axis=1, keepdims=True)
        along = ops.sum(projected * ops.sum(ops.cast(activations, "float64"), axis=-1), axis=1, keepdims=True)
        tied = ops.abs(high - low) <= 1e-6 * ops.maximum(high, low)
        flipped = ops.where(tied, along < 0, low > high)
        return ops.cast(ops.where(flipped, -projected, projected), activations.dtype)
