"""Finds feature maps: tensors of channels at positions that lie on the spatial axes of a model input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from keras import ops

from kxai.errors import ArgumentError, RuleError
from kxai.graph import black_box
from kxai.graph.canonize import prune
from kxai.graph.cut import layer_outputs
from kxai.graph.graph import Edge, Graph, Kind, Node
from kxai.graph.layout import as_edge, per_sample, sample_shape

CHANNEL = 0
"""Stands for the axis of an input that became channels; axis 0 is the batch."""

# Operations that may move axes though the rank stays.
_MOVING = frozenset("reshape transpose swapaxes moveaxis rearrange view rot90 flatten extract_patches unfold".split())
_LINEAR = (Kind.AFFINE, Kind.SCALE, Kind.ROUTE, Kind.SUM)


@final
@dataclass(frozen=True)
class Place:
    """How the axes of an input lie in an edge that is computed from it.

    Attributes:
        axes: per axis of the input (without its batch axis) that of the edge, per sample; CHANNEL for the one whose
            values were joined, picked or mixed.
        mixed: whether a layer has made channels of the input.
    """

    axes: tuple[int, ...]
    mixed: bool = False

    @property
    def spatial(self) -> tuple[int, ...]:
        """Axes of the edge, in the order of the input's."""
        return tuple(axis for axis in self.axes if axis != CHANNEL)

    @property
    def of_input(self) -> tuple[int, ...]:
        """The axes of the input that these are."""
        return tuple(i for i, axis in enumerate(self.axes, start=1) if axis != CHANNEL)


@final
@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Channels at positions.

    Attributes:
        edge: the tensor.
        path: of the node that computes it.
        spatial: its axes, per sample, that are positions; all others are channels.
        inputs: per model input (by position) on which the positions lie, the axes of that input.
    """

    edge: Edge
    path: str
    spatial: tuple[int, ...]
    inputs: Mapping[int, tuple[int, ...]]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of positions along each axis."""
        return tuple(sample_shape(self.edge)[axis] or 1 for axis in self.spatial)

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """The axes, per sample, that are neither batch nor positions."""
        return tuple(i for i in range(1, len(sample_shape(self.edge))) if i not in self.spatial)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return math.prod(sample_shape(self.edge)[axis] or 1 for axis in self.channel_axes)

    def arranged(self, tensor: Any) -> Any:
        """(batch, positions, channels) of a tensor with one entry per sample."""
        moved = ops.transpose(tensor, (0, *self.spatial, *self.channel_axes))
        return ops.reshape(moved, (-1, math.prod(self.sizes), self.channels))

    def scaled(self, tensor: Any, factors: Any) -> Any:
        """The edge's own tensor with every channel multiplied.

        Args:
            tensor: as the graph computes it.
            factors: (batch, channels).
        """
        shape = [1 if axis in self.spatial else size for axis, size in enumerate(sample_shape(self.edge))]
        factors = ops.reshape(ops.cast(factors, tensor.dtype), (-1, *shape[1:]))
        return as_edge(per_sample(tensor, self.edge) * factors, self.edge)

    def over_input(self, position: int, rank: int, values: Any) -> Any:
        """Values (batch, *sizes) at the positions of an input, in a shape that can be multiplied with it."""
        sizes = dict(zip(self.inputs[position], values.shape[1:], strict=True))
        return ops.reshape(values, (-1, *(sizes.get(axis, 1) for axis in range(1, rank))))


def feature_maps(graph: Graph, layer: Any = None) -> tuple[FeatureMap, ...]:
    """The feature maps of a layer, or the last ones, at most one per model input.

    The last one is that after which no other tensor keeps all spatial axes of the input (with more than one position):
    before the first global pooling, flattening or reading of single positions. Branches that come back, such as the
    gates of squeeze and excitation, do not count, nor do the logits of dense predictions. Where branches end apart, it
    is the last one that all of them come through.

    Args:
        graph: of what is explained, with nothing else.
        layer: a path, glob or Keras layer, see :func:`kxai.graph.cut.layer_outputs`; None: the last ones.

    Raises:
        RuleError: there is none. ArgumentError: the layer has none, or there are several for an input.
        UnknownNameError: no such layer.
    """
    places = [_places(graph, edge) for edge in graph.inputs]
    maps = [[edge for edge in found if _is_map(graph, edge, found[edge])] for found in places]
    chosen = _last(graph, maps) if layer is None else _named(graph, maps, layer)
    found: dict[tuple[Edge, tuple[int, ...]], dict[int, tuple[int, ...]]] = {}
    for position, edges in enumerate(chosen):
        if len(edges) > 1:
            raise _several(graph, position, edges, layer)
        for edge in edges:
            place = places[position][edge]
            found.setdefault((edge, place.spatial), {})[position] = place.of_input
    return tuple(FeatureMap(edge, graph.producer[edge].path, axes, inputs) for (edge, axes), inputs in found.items())


def _last(graph: Graph, maps: Sequence[Sequence[Edge]]) -> list[list[Edge]]:
    logits = {edge for found in maps for end in graph.explained if end in found for edge in _unmixed(graph, end)}
    chosen = [_ends(graph, [edge for edge in edges if edge not in logits]) for edges in maps]
    edges = {edge for found in chosen for edge in found}
    if not edges:
        black_box.check_open(graph, "the feature maps of one of them")
        raise RuleError(
            "The model has no feature map: nothing that it computes keeps the spatial axes of an input.",
            expected="for example convolutions, before their global pooling or flattening",
            received=", ".join(f"input {edge.name!r} {edge.shape}" for edge in graph.inputs),
            fix=_ALTERNATIVES,
        )
    linear = _linear(graph)
    if edges <= linear and any(node.kind is Kind.BILINEAR for node in graph.nodes):
        paths = ", ".join(repr(graph.producer[edge].path) for edge in edges)
        raise RuleError(
            f"The last feature map ({paths}) is a linear function of the input, an embedding of patches say; what the "
            "model computes of it are tokens, related by attention or matrix products, not maps.",
            expected="a network whose layers keep the spatial axes of the input",
            received=f"{len(graph.nodes)} nodes, of which only these make maps: {', '.join(_paths(graph, maps))}",
            fix=f"{_ALTERNATIVES} Or name one of these layers: layer=...",
        )
    return chosen


_ALTERNATIVES = "use lrp.epsilon_plus, lrp.attn, attention_relevance, attention_rollout or a gradient method."


def _named(graph: Graph, maps: Sequence[Sequence[Edge]], layer: Any) -> list[list[Edge]]:
    edges = layer_outputs(graph, layer)
    chosen = [[edge for edge in edges if edge in found] for found in maps]
    if not any(chosen):
        listed = ", ".join(f"{graph.producer[edge].path} {sample_shape(edge)}" for edge in edges)
        raise ArgumentError(
            "The layer's output is no feature map: it does not keep the spatial axes of an input.",
            expected=f"one of {', '.join(_paths(graph, maps)) or 'none: the model has no feature map'}",
            received=listed,
        )
    return chosen


def _several(graph: Graph, position: int, edges: Sequence[Edge], layer: Any) -> ArgumentError:
    which = "The model ends in" if layer is None else "The layer has"
    return ArgumentError(
        f"{which} {len(edges)} feature maps of input {graph.inputs[position].name!r}.",
        expected="one for each input",
        received=", ".join(graph.producer[edge].path for edge in edges),
        fix="name one of them: layer=...",
    )


def _paths(graph: Graph, maps: Sequence[Sequence[Edge]]) -> list[str]:
    """Paths of the nodes that make maps, the last ones first."""
    wanted = {edge for edges in maps for edge in edges}
    paths = [node.path for node in reversed(graph.nodes) if wanted.intersection(node.outputs)]
    return [*paths[:12], *(["..."] if len(paths) > 12 else [])]


def explained_part(graph: Graph, explained: Sequence[Edge]) -> Graph:
    """The graph with nothing but what leads to these edges, which are what is explained."""
    names = tuple(name for edge, name in zip(graph.explained, graph.output_names, strict=True) if edge in explained)
    edges = tuple(edge for edge in graph.explained if edge in explained)
    return prune(replace(graph, outputs=edges, explained=edges, output_names=names))


def _ends(graph: Graph, maps: Sequence[Edge]) -> list[Edge]:
    """The maps from which none of the others is computed; of several the last one that all of them come through."""
    wanted, before = set(maps), set[Edge]()
    for node in reversed(graph.nodes):
        if not before.isdisjoint(node.outputs) or not wanted.isdisjoint(node.outputs):
            before.update(node.inputs)
    ends = [edge for edge in maps if edge not in before]
    if len(ends) < 2:
        return ends
    return next(([edge] for edge in reversed(maps) if edge not in ends and _separates(graph, edge, ends)), ends)


def _separates(graph: Graph, edge: Edge, ends: Sequence[Edge]) -> bool:
    """Whether everything that active inputs give to the ends goes through an edge."""
    around = set(graph.inputs)
    for node in graph.nodes:
        if around.intersection(node.inputs):
            around.update(other for other in node.outputs if other is not edge and other in graph.active)
    return around.isdisjoint(ends)


def _unmixed(graph: Graph, edge: Edge) -> list[Edge]:
    """What is explained, at every position: itself before its softmax, or before it was resized."""
    found = [edge]
    while (node := graph.producer.get(found[-1])) is not None and node.kind not in (Kind.AFFINE, Kind.RECURRENT):
        active = [source for source in node.inputs if source in graph.active]
        if len(active) != 1:
            break
        found += active
    return found


def _linear(graph: Graph) -> set[Edge]:
    """Edges that are affine functions of the inputs."""
    found = set(graph.inputs)
    for node in graph.nodes:
        if node.kind in _LINEAR and all(edge in found for edge in node.inputs if edge in graph.active):
            found.update(node.outputs)
    return found


def _is_map(graph: Graph, edge: Edge, place: Place) -> bool:
    node = graph.producer.get(edge)
    first = node is not None and node.outputs[0] is edge
    return first and place.mixed and edge.is_float and edge in graph.active


def _places(graph: Graph, start: Edge) -> dict[Edge, Place]:
    """All edges that keep the spatial axes of an input, and how those lie there."""
    found = {start: Place(tuple(range(1, len(sample_shape(start)))))}
    for node in graph.nodes:
        sources = node.inputs[:1] if node.kind is Kind.AFFINE else node.inputs
        if node.kind in (Kind.BILINEAR, Kind.CONSTANT) or not any(edge in found for edge in sources):
            continue
        for output in node.outputs:
            places = [_after(node, edge, output, found[edge]) for edge in sources if edge in found]
            kept = [place for place in places if place is not None]
            if kept:
                found[output] = max(kept, key=lambda place: place.mixed)
    return found


def _after(node: Node, edge: Edge, output: Edge, place: Place) -> Place | None:
    """The place behind a node; None if positions are lost."""
    before, after = sample_shape(edge), sample_shape(output)
    if output.batch is None or None in before[1:] or None in after[1:]:
        return None
    axes: tuple[int | None, ...] = place.axes
    if node.kind is Kind.ROUTE and (len(before) != len(after) or node.op in _MOVING):
        axes = _moved(node, edge, output, place)
    elif len(before) != len(after) and node.kind is not Kind.LOOKUP:
        return None
    if node.op == "concatenate":
        axes = tuple(None if axis and before[axis] != after[axis] else axis for axis in axes)
    elif node.kind in (Kind.AFFINE, Kind.RECURRENT):
        channel = len(before) + (-1 if node.affine is None else node.affine.axis)
        axes = tuple(None if axis == channel else axis for axis in axes)
    if not place.mixed and axes.count(None) == 1 and CHANNEL not in axes:
        axes = tuple(CHANNEL if axis is None else axis for axis in axes)  # now it is known which one it is
    known = [axis for axis in axes if axis is not None]
    if len(known) < len(axes) or math.prod(after[axis] or 1 for axis in known if axis) == 1:
        return None
    return Place(tuple(known), place.mixed or node.kind in (Kind.AFFINE, Kind.RECURRENT, Kind.LOOKUP))


def _moved(node: Node, edge: Edge, output: Edge, place: Place) -> tuple[int | None, ...]:
    """Where a call moves the axes to: tried out on the coordinates themselves."""
    sizes = [1 if size is None else size for size in sample_shape(edge)]
    if len(node.inputs) > 1:
        return (None,) * len(place.axes)
    found: list[int | None] = []
    for axis in place.axes:
        if axis == CHANNEL:
            found.append(CHANNEL)
            continue
        counted = np.arange(sizes[axis]).reshape(-1, *(1,) * (len(sizes) - axis - 1))
        coordinates = ops.convert_to_tensor(np.broadcast_to(counted, sizes).astype(edge.dtype))
        index = node.outputs.index(output)
        moved = ops.convert_to_numpy(per_sample(node.run(as_edge(coordinates, edge))[index], output))
        found.append(_axis_of(moved, sizes[axis], [other for other in found if other]))
    return tuple(found)


def _axis_of(coordinates: np.ndarray, size: int, taken: Sequence[int | None]) -> int | None:
    """The axis along which coordinates run from 0 to ``size`` - 1."""
    for axis in range(1, coordinates.ndim):
        counted = np.arange(size).reshape(-1, *(1,) * (coordinates.ndim - axis - 1))
        if axis not in taken and coordinates.shape[axis] == size and np.array_equal(
            coordinates, np.broadcast_to(counted, coordinates.shape)
        ):  # fmt: skip
            return axis
    return None
