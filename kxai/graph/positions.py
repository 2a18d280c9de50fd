"""Which tensors of a graph lie on the spatial axes of an input, in their order and behind no recurrence.

A tensor of a single position counts, unlike for ``feature_maps.py``, which follows axes wherever they go as long as
there is something to tell apart along them.
"""

from __future__ import annotations

from kxai.graph.graph import Edge, Graph, Kind, Node

# Kinds whose outputs lie where their inputs do, and of the others the operations.
_KINDS = frozenset({Kind.ELEMENTWISE, Kind.SCALE, Kind.NORM, Kind.SOFTMAX, Kind.PRODUCT})
_OPS = frozenset(
    "conv depthwise_conv conv_transpose dense add subtract average average_pool resize center negative max_pool "
    "maximum minimum zero_pad pad pad_images crop crop_images up_sample concatenate cast get_item slice split".split()
)


def positioned(graph: Graph, image: Edge) -> frozenset[Edge]:
    """The input and all that is computed from it without leaving its spatial axes; sizes may change.

    Convolutions, pooling, activations, sums, padding and cropping stay; global pooling, reshaping, attention and
    recurrence leave.

    Args:
        graph: the graph.
        image: an input of shape (batch, *spatial, channels).
    """
    found = {image}
    for node in graph.nodes:
        if _stays(node) and any(edge in found and _same_axes(edge, node) for edge in node.inputs):
            found.update(edge for edge in node.outputs if edge.is_float)
    return frozenset(found)


def _stays(node: Node) -> bool:
    return node.loop is None and (node.kind in _KINDS or node.op in _OPS)


def _same_axes(edge: Edge, node: Node) -> bool:
    output = node.outputs[0]
    # Channels are joined; what is joined along space lies elsewhere.
    joined = node.op == "concatenate" and edge.shape[1:-1] != output.shape[1:-1]
    return len(edge.shape) == len(output.shape) and output.batch == (0, 1) and not joined
