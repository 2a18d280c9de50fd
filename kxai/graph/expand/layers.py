"""Layers of Keras that become a few nodes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kxai.errors import ModelError
from kxai.graph.affine import Affine, Scale
from kxai.graph.classify import layers_named
from kxai.graph.graph import Kind
from kxai.graph.group import Group, mean_over


def _spec(shape: Any, x: Any, layer: Any) -> keras.KerasTensor:
    """What a layer returns for ``x``: integers are computed with in the layer's own precision."""
    floating = "float" in keras.backend.standardize_dtype(x.dtype)
    return keras.KerasTensor(shape, x.dtype if floating else layer.compute_dtype)


def _affine(record: Any, layer: Any, op: str, x: Any, affine: Affine, shape: Any, suffix: str = "") -> Any:
    return record.emit(op, Kind.AFFINE, affine, [x], _spec(shape, x, layer), layer=layer, affine=affine, suffix=suffix)


def _dense(record: Any, layer: Any, x: Any, training: Any = None) -> Any:
    affine = Affine(
        linear=ops.matmul,
        kernel=lambda: ops.convert_to_tensor(layer.kernel),
        bias=(lambda: ops.convert_to_tensor(layer.bias)) if layer.use_bias else None,
        kernel_out=(1, -1),
        kernel_in=(-1, 1),
    )
    z = _affine(record, layer, "dense", x, affine, layer.compute_output_shape(x.shape))
    return record.activate(layer.activation, z, layer=layer)


def _einsum_dense(record: Any, layer: Any, x: Any, training: Any = None) -> Any:
    affine = Affine(
        linear=lambda x, kernel: ops.einsum(layer.equation, x, kernel),
        kernel=lambda: ops.convert_to_tensor(layer.kernel),
        bias=(lambda: ops.convert_to_tensor(layer.bias)) if layer.bias is not None else None,
    )
    z = _affine(record, layer, "einsum_dense", x, affine, _einsum_shape(layer, x.shape))
    return record.activate(layer.activation, z, layer=layer)


def _einsum_shape(layer: Any, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The output's shape; axes that the layer leaves open, such as the tokens, are as long as in the input."""
    declared: tuple[int | None, ...] = tuple(layer.compute_output_shape(shape))
    operands, result = layer.equation.replace(" ", "").split("->")
    if "." in layer.equation:
        return declared
    sizes = dict(zip(operands.split(",")[0], shape, strict=True))
    return tuple(sizes.get(axis) if size is None else size for axis, size in zip(result, declared, strict=True))


def _channel_axis(layer: Any) -> int:
    return -1 if layer.data_format == "channels_last" else -1 - layer.rank


def _bias(layer: Any) -> Callable[[], Any] | None:
    shape = (-1,) + (1,) * (-1 - _channel_axis(layer))
    return (lambda: ops.reshape(layer.bias, shape)) if layer.use_bias else None


def _conv(record: Any, layer: Any, x: Any) -> Any:
    def linear(x: Any, kernel: Any) -> Any:
        padding = layer.padding
        if padding == "causal":
            left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            time = [[left, 0], [0, 0]] if layer.data_format == "channels_last" else [[0, 0], [left, 0]]
            x, padding = ops.pad(x, [[0, 0], *time]), "valid"
        return _by_groups(layer, x, kernel, padding)

    custom = type(layer).convolution_op is not keras.layers.Conv2D.convolution_op
    ones = (1,) * layer.rank
    affine = Affine(
        linear=layer.convolution_op if custom else linear,
        kernel=lambda: ops.convert_to_tensor(layer.kernel),
        bias=_bias(layer),
        kernel_out=(*ones, 1, -1),
        kernel_in=(*ones, -1, 1) if layer.groups == 1 else None,
        axis=_channel_axis(layer),
        pads=layer.padding != "valid",
    )
    z = _affine(record, layer, "conv", x, affine, layer.compute_output_shape(x.shape))
    return record.activate(layer.activation, z, layer=layer)


def _by_groups(layer: Any, x: Any, kernel: Any, padding: str) -> Any:
    """A convolution, of groups one by one: of several at once Keras compiles it, anew for every shape, by XLA."""
    axis, groups = _channel_axis(layer), layer.groups
    settings = {"padding": padding, "dilation_rate": layer.dilation_rate, "data_format": layer.data_format}
    strides = list(layer.strides)
    if groups == 1:
        return ops.conv(x, kernel, strides=strides, **settings)
    # TensorFlow has depthwise convolutions of two axes at most, with one stride for both.
    if kernel.shape[-2] == 1 and layer.rank < 3 and len(set(strides)) == 1:
        factors = ops.reshape(kernel, (*kernel.shape[:-2], groups, -1))
        return ops.depthwise_conv(x, factors, strides=layer.strides, **settings)
    parts = zip(ops.split(x, groups, axis), ops.split(kernel, groups, -1), strict=True)
    return ops.concatenate([ops.conv(part, own, strides=strides, **settings) for part, own in parts], axis)


def _depthwise_map(layer: Any, kernel: Callable[[], Any], channels: int, bias: Any) -> Affine:
    def linear(x: Any, kernel: Any) -> Any:
        return ops.depthwise_conv(
            x, kernel, strides=layer.strides, padding=layer.padding,
            dilation_rate=layer.dilation_rate, data_format=layer.data_format,
        )  # fmt: skip

    ones = (1,) * layer.rank
    return Affine(
        linear=linear,
        kernel=kernel,
        bias=bias,
        kernel_out=(*ones, channels, -1),
        kernel_in=(*ones, channels, 1),
        axis=_channel_axis(layer),
        pads=layer.padding != "valid",
    )


def _depthwise_conv(record: Any, layer: Any, x: Any) -> Any:
    affine = _depthwise_map(
        layer, lambda: ops.convert_to_tensor(layer.kernel), x.shape[_channel_axis(layer)], _bias(layer)
    )
    z = _affine(record, layer, "depthwise_conv", x, affine, layer.compute_output_shape(x.shape))
    return record.activate(layer.activation, z, layer=layer)


def _separable_conv(record: Any, layer: Any, x: Any) -> Any:
    axis = _channel_axis(layer)
    channels, ones = x.shape[axis], (1,) * layer.rank
    depthwise = _depthwise_map(layer, lambda: ops.convert_to_tensor(layer.depthwise_kernel), channels, None)
    shape = list(layer.compute_output_shape(x.shape))
    middle = list(shape)
    middle[axis] = channels * layer.depth_multiplier
    hidden = _affine(record, layer, "depthwise_conv", x, depthwise, middle, suffix="depthwise")
    pointwise = Affine(
        linear=lambda x, kernel: ops.conv(x, kernel, padding="valid", data_format=layer.data_format),
        kernel=lambda: ops.convert_to_tensor(layer.pointwise_kernel),
        bias=_bias(layer),
        kernel_out=(*ones, 1, -1),
        kernel_in=(*ones, -1, 1),
        axis=axis,
    )
    z = _affine(record, layer, "conv", hidden, pointwise, shape, suffix="pointwise")
    return record.activate(layer.activation, z, layer=layer)


def _conv_transpose(record: Any, layer: Any, x: Any) -> Any:
    def linear(x: Any, kernel: Any) -> Any:
        return ops.conv_transpose(
            x, kernel, strides=list(layer.strides), padding=layer.padding, output_padding=layer.output_padding,
            dilation_rate=layer.dilation_rate, data_format=layer.data_format,
        )  # fmt: skip

    ones = (1,) * layer.rank
    affine = Affine(
        linear=linear,
        kernel=lambda: ops.convert_to_tensor(layer.kernel),
        bias=_bias(layer),
        kernel_out=(*ones, -1, 1),
        # Input channels are not merged: the border of a transposed convolution sees fewer of them.
        axis=_channel_axis(layer),
        pads=True,
    )
    z = _affine(record, layer, "conv_transpose", x, affine, layer.compute_output_shape(x.shape))
    return record.activate(layer.activation, z, layer=layer)


def _batch_normalization(record: Any, layer: Any, x: Any, training: Any = None, mask: Any = None) -> Any:
    def factor() -> Any:
        inverse = ops.rsqrt(ops.add(layer.moving_variance, layer.epsilon))
        return inverse * layer.gamma if layer.scale else inverse

    def shift() -> Any:
        offset = -layer.moving_mean * factor()
        return offset + layer.beta if layer.center else offset

    rank = len(x.shape)
    axis = layer.axis if layer.axis < 0 else layer.axis - rank
    if training and layer.trainable:
        raise ModelError(
            f"Layer {layer.name!r} normalises with the statistics of the batch, which mixes the samples.",
            received="a call with training=True",
            fix="call the layer with training=False, or pass on the training argument of the model.",
        )
    scale, outputs = Scale(factor, shift, axis), _spec(x.shape, x, layer)
    return record.emit("batch_norm", Kind.SCALE, layer.call, [x], outputs, layer=layer, scale=scale)


def _activation(record: Any, layer: Any, x: Any) -> Any:
    return record.activate(layer.activation, x, layer=layer, suffix=False)


def _relu(record: Any, layer: Any, x: Any) -> Any:
    op = relu_name(layer.negative_slope, layer.threshold)
    return record.emit(op, Kind.ELEMENTWISE, layer.call, [x], layer.compute_output_spec(x), layer=layer)


def relu_name(negative_slope: Any, threshold: Any) -> str:
    """The name "relu" if the function is 0 on all negative inputs and nowhere negative, else what it is."""
    if not negative_slope:
        return "relu" if threshold >= 0 else "thresholded_relu"
    return "leaky_relu" if threshold == 0 else "thresholded_relu"


def _up_sampling(record: Any, layer: Any, x: Any) -> Any:
    kind = Kind.ROUTE if layer.interpolation == "nearest" else Kind.SUM
    outputs = layer.compute_output_spec(x)
    return record.emit("up_sample", kind, layer.call, [x], outputs, layer=layer)


def _layer_normalization(record: Any, layer: Any, x: Any) -> Any:
    axes = list(layer.axis) if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if vars(layer).get("rms_scaling"):  # it divides by the deviation and leaves the mean
        return record.emit("layer_norm", Kind.NORM, layer.call, [x], _spec(x.shape, x, layer), layer=layer)
    return _centred(record, layer, "layer_norm", x, mean_over(axes))


def _group_normalization(record: Any, layer: Any, x: Any) -> Any:
    def mean(v: Any) -> Any:
        last = ops.moveaxis(v, layer.axis, -1)
        channels = last.shape[-1]
        groups = channels if layer.groups == -1 else layer.groups
        grouped = ops.reshape(last, (ops.shape(last)[0], -1, groups, channels // groups))
        means = ops.repeat(ops.mean(grouped, axis=[1, 3]), channels // groups, axis=-1)
        means = ops.reshape(means, (ops.shape(v)[0], *(1,) * (len(v.shape) - 2), channels))
        return ops.moveaxis(means, -1, layer.axis)

    return _centred(record, layer, "group_norm", x, mean)


def _centred(record: Any, layer: Any, op: str, x: Any, mean: Callable[[Any], Any]) -> Any:
    """Centring (a sum with constant weights), then the norm, which does not move centred values again."""
    spec = _spec(x.shape, x, layer)
    centred = record.emit("center", Kind.SUM, lambda v: v - mean(v), [x], spec, layer=layer, suffix="center")
    outputs, group = _spec(x.shape, x, layer), Group(mean, layer.epsilon)
    return record.emit(op, Kind.NORM, layer.call, [centred], outputs, layer=layer, group=group)


def _time_distributed(record: Any, layer: Any, x: Any, training: Any = None, mask: Any = None) -> Any:
    """Time steps join the batch: each step meets the inner layer under that layer's own rules."""
    masks = {}
    if mask is not None and "mask" in inspect.signature(layer.layer.call).parameters:
        masks["mask"] = ops.reshape(mask, (-1, *mask.shape[2:]))
    inner = layer.layer(ops.reshape(x, (-1, *x.shape[2:])), training=bool(training), **masks)
    return ops.reshape(inner, (-1, x.shape[1], *inner.shape[1:]))


def _embedding(record: Any, layer: Any, ids: Any) -> Any:
    outputs = layer.compute_output_spec(ids)
    return record.emit("embedding", Kind.LOOKUP, layer.call, [ids], outputs, layer=layer, entries=layer.input_dim)


def average_of(layer: Any) -> Callable[[Any], Any] | None:
    """The averaging counterpart of a max-pooling layer: same windows, same output shape."""
    if isinstance(layer, layers_named("MaxPooling1D MaxPooling2D MaxPooling3D")):
        return lambda x: ops.average_pool(x, layer.pool_size, layer.strides, layer.padding, layer.data_format)
    if isinstance(layer, layers_named("GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D")):

        def average(x: Any) -> Any:
            first = 1 if layer.data_format == "channels_last" else 2
            return ops.mean(x, axis=list(range(first, first + len(x.shape) - 2)), keepdims=layer.keepdims)

        return average
    return None


LAYER_EXPANSIONS: dict[type, Callable[..., Any]] = {
    layer: expansion
    for names, expansion in (
        ("Dense", _dense),
        ("EinsumDense", _einsum_dense),
        ("Conv1D Conv2D Conv3D", _conv),
        ("DepthwiseConv1D DepthwiseConv2D", _depthwise_conv),
        ("SeparableConv1D SeparableConv2D", _separable_conv),
        ("Conv1DTranspose Conv2DTranspose Conv3DTranspose", _conv_transpose),
        ("BatchNormalization", _batch_normalization),
        ("Activation", _activation),
        ("ReLU", _relu),
        ("UpSampling2D", _up_sampling),
        ("LayerNormalization", _layer_normalization),
        ("GroupNormalization", _group_normalization),
        ("Embedding", _embedding),
        ("TimeDistributed", _time_distributed),
    )
    for layer in layers_named(names)
}
