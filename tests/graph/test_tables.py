"""Everything that Keras ships: each public layer and operation is explained, or stands in a list that says why not.

A layer or operation that Keras adds is in neither, and fails by name.
"""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812 - a table of layers
from keras import ops

import kxai
from kxai.composites import make_plan
from kxai.composites.presets import PRESETS, gradient
from kxai.errors import ModelError, RuleError
from kxai.graph.classify import CLOSED, HIGHER_ORDER, OPS
from kxai.graph.expand import OP_EXPANSIONS
from kxai.graph.graph import Kind
from kxai.graph.trace import input_specs, trace
from kxai.reverse import backward, forward
from tests.beside import release

SHAPE = (4, 6)
IMAGE = (6, 6, 3)


def constant(*shape):
    """Numbers between 0.2 and 0.8, no two of them equal."""
    size = int(np.prod(shape))
    return np.random.default_rng(size).permutation(np.linspace(0.2, 0.8, size)).reshape(shape)


class Box(keras.Layer):
    """A layer of one function; what is no float it keeps to itself."""

    def __init__(self, function):
        super().__init__(dtype="float64")
        self.function, self.built = function, True

    def call(self, x):
        outputs = [
            y for y in keras.tree.flatten(self.function(x)) if "float" in keras.backend.standardize_dtype(y.dtype)
        ]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def explained(model, inputs):
    """(the nodes, why lrp.epsilon refuses the model); the gradient equals the tape's."""
    graph = trace(model, input_specs(model, np.asarray(inputs)))
    plan = make_plan(graph, gradient(), strip=False)
    run = forward(plan, [inputs])
    outputs = plan.graph.outputs
    values = {edge: run.values[edge] for edge in outputs}
    weights = {edge: ops.cast(constant(*value.shape), value.dtype) for edge, value in values.items()}
    if inputs.dtype.is_floating:
        got = backward(plan, run, weights).inputs[0]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            results = zip(keras.tree.flatten(model(inputs, training=False)), outputs, strict=True)
            total = tf.add_n([tf.reduce_sum(tf.cast(y * weights[edge], "float64")) for y, edge in results])
        expected = np.asarray(tape.gradient(total, inputs, unconnected_gradients="zero"))
        assert np.abs(expected).max() > 0
        # What is opened adds in another order; Keras takes some constants (of attention) in float32.
        precision = 1e-7 if "float32" not in {edge.dtype for edge in (*outputs, *plan.graph.inputs)} else 1e-4
        np.testing.assert_allclose(got, expected, rtol=precision, atol=precision * np.abs(expected).max())
    try:
        plan = make_plan(graph, PRESETS["epsilon"](), strip=False)
    except RuleError as error:
        return graph.nodes, str(error)
    run = forward(plan, [inputs])
    relevance = np.asarray(backward(plan, run, weights).inputs[0])
    assert relevance.shape == tuple(inputs.shape)
    assert np.isfinite(relevance).all()
    assert np.abs(relevance).max() > 0
    return graph.nodes, ""


# Operations of one tensor of shape (batch, 4, 6) that need no other argument.
PLAIN = """
    abs absolute arccos arcsin arcsinh arctan arctanh cbrt celu conj conjugate copy cos cosh deg2rad elu
    erf erfc erfinv exp exp2 expm1 fabs gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh i0 leaky_relu
    log log10 log1p log2 log_sigmoid log_softmax nan_to_num negative rad2deg real reciprocal relu relu6 rsqrt selu
    sigmoid silu sin sinc sinh soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sqrt square
    squareplus swish tan tanh tanh_shrink convert_to_tensor
"""
AXIS = """
    amax amin max min mean median nanmax nanmean nanmedian nanmin nanprod nanstd nansum nanvar prod ptp std sum var
    average cumprod cumsum nancumprod nancumsum logsumexp flip sort normalize
"""
BINARY = """
    add subtract multiply divide true_divide divide_no_nan maximum minimum fmax fmin power arctan2 hypot logaddexp
   logaddexp2 mod fmod
"""


def _matrix(x):
    """Positive definite, for decompositions."""
    return ops.matmul(ops.transpose(x, (0, 2, 1)), x) + np.eye(6)


# Operations with arguments of their own.
SPECIAL = {
    "adaptive_average_pool": (lambda x: ops.adaptive_average_pool(x, (3, 3)), IMAGE),
    "adaptive_max_pool": (lambda x: ops.adaptive_max_pool(x, (3, 3)), IMAGE),
    "affine_transform": (lambda x: ops.image.affine_transform(x, np.array([0.9, 0.1, 0.2, 0, 1.1, 0, 0, 0])), IMAGE),
    "append": lambda x: ops.append(x, 2.0 * x, axis=1),
    "arccosh": lambda x: ops.arccosh(x + 1.0),
    "array_split": lambda x: ops.array_split(x, 3, axis=1),
    "average_pool": (lambda x: ops.average_pool(x, 2), IMAGE),
    "batch_normalization": lambda x: ops.batch_normalization(x, constant(6), constant(6), axis=-1),
    "binary_crossentropy": lambda x: ops.binary_crossentropy(0 * x + constant(1, 4, 6), x),
    "broadcast_to": lambda x: ops.broadcast_to(x[:, :1], (ops.shape(x)[0], 4, 6)),
    "cast": lambda x: ops.cast(x, "float32"),
    "categorical_crossentropy": lambda x: ops.categorical_crossentropy(0 * x + constant(1, 4, 6), x),
    "cdist": lambda x: ops.cdist(x, 2.0 * x + 1.0),
    "cholesky": lambda x: ops.cholesky(_matrix(x)),
    "cholesky_inverse": lambda x: ops.cholesky_inverse(ops.cholesky(_matrix(x))),
    "clip": lambda x: ops.clip(x, 0.4, 0.6),
    "concatenate": lambda x: ops.concatenate([x, 2.0 * x], axis=1),
    "conv": (lambda x: ops.conv(x, constant(2, 2, 3, 4)), IMAGE),
    "cross": lambda x: ops.cross(x[..., :3], constant(3)),
    "crop_images": (lambda x: ops.image.crop_images(x, 1, 1, 1, 1), IMAGE),
    "cond": lambda x: ops.cond(ops.max(x) > 0.5, lambda: x * 2.0, lambda: x),
    "depth_to_space": (lambda x: ops.depth_to_space(x, 2), (3, 3, 8)),
    "depthwise_conv": (lambda x: ops.depthwise_conv(x, constant(2, 2, 3, 2)), IMAGE),
    "det": lambda x: ops.det(_matrix(x)),
    "diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
    "diff": lambda x: ops.diff(x, axis=1),
    "dot": lambda x: ops.dot(x, constant(6, 3)),
    "dot_product_attention": (lambda x: ops.dot_product_attention(x, x, x), (4, 2, 3)),
    "dsplit": lambda x: ops.dsplit(x, 2),
    "dstack": lambda x: ops.dstack([x, 2.0 * x]),
    "einsum": lambda x: ops.einsum("bij,jk->bik", x, constant(6, 3)),
    "eigh": lambda x: ops.eigh(_matrix(x))[0],
    "expand_dims": lambda x: ops.expand_dims(x, 1),
    "extract_patches": (lambda x: ops.image.extract_patches(x, 2), IMAGE),
    "extract_patches_3d": (lambda x: ops.image.extract_patches_3d(x, 2), (4, 4, 4, 2)),
    "extract_sequences": lambda x: ops.extract_sequences(x, 3, 2),
    "fft": lambda x: ops.fft((x, 2.0 * x)),
    "fft2": lambda x: ops.fft2((x, 2.0 * x)),
    "fliplr": lambda x: ops.fliplr(x),
    "fold": (lambda x: ops.fold(x, (3, 3), 2), (8, 4)),
    "fori_loop": lambda x: ops.fori_loop(0, 2, lambda i, v: v * 2.0, x),
    "gaussian_blur": (lambda x: ops.image.gaussian_blur(x, (3, 3), (1.0, 1.0)), IMAGE),
    "get_item": lambda x: x[:, 1:3, ::2],
    "hsplit": lambda x: ops.hsplit(x, 2),
    "hstack": lambda x: ops.hstack([x, 2.0 * x]),
    "ifft2": lambda x: ops.ifft2((x, 2.0 * x)),
    "inner": lambda x: ops.inner(x, constant(3, 6)),
    "inv": lambda x: ops.inv(_matrix(x)),
    "irfft": lambda x: ops.irfft((x, 2.0 * x)),
    "kron": lambda x: ops.kron(x, constant(1, 2, 2)),
    "layer_normalization": lambda x: ops.layer_normalization(x, constant(6), constant(6)),
    "ldexp": lambda x: ops.ldexp(x, np.array(2)),
    "logdet": lambda x: ops.logdet(_matrix(x)),
    "map": lambda x: ops.map(lambda v: v * 2.0, x),
    "map_coordinates": (lambda x: ops.image.map_coordinates(x[0], constant(3, 5) * 3, 1), IMAGE),
    "matmul": lambda x: ops.matmul(x, constant(6, 3)),
    "max_pool": (lambda x: ops.max_pool(x, 2), IMAGE),
    "moments": lambda x: ops.moments(x, axes=[1]),
    "moveaxis": lambda x: ops.moveaxis(x, 1, 2),
    "nanpercentile": lambda x: ops.nanpercentile(x, 30, axis=1),
    "nanquantile": lambda x: ops.nanquantile(x, 0.3, axis=1),
    "norm": lambda x: ops.norm(x, axis=-1),
    "outer": lambda x: ops.outer(x, constant(3)),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 2]]),
    "pad_images": (lambda x: ops.image.pad_images(x, 1, 1, 8, 8), IMAGE),
    "percentile": lambda x: ops.percentile(x, 30, axis=1),
    "perspective_transform": (
        lambda x: ops.image.perspective_transform(
            x,
            np.array([[[0.0, 0], [0, 5], [5, 0], [5, 5]]] * 2, "float32"),
            np.array([[[0.0, 1], [0, 5], [4, 0], [5, 5]]] * 2, "float32"),
        ),
        IMAGE,
    ),
    "pinv": lambda x: ops.pinv(x),
    "psnr": lambda x: ops.psnr(x, 2.0 * x, 1.0),
    "qr": lambda x: ops.qr(x),
    "quantile": lambda x: ops.quantile(x, 0.3, axis=1),
    "ravel": lambda x: ops.ravel(x),
    "rearrange": lambda x: ops.rearrange(x, "b i j -> b (i j)"),
    "repeat": lambda x: ops.repeat(x, 2, axis=1),
    "reshape": lambda x: ops.reshape(x, (-1, 24)),
    "resize": (lambda x: ops.image.resize(x, (4, 4)), IMAGE),
    "rfft": lambda x: ops.rfft(x),
    "rgb_to_grayscale": (lambda x: ops.image.rgb_to_grayscale(x), IMAGE),
    "rgb_to_hsv": (lambda x: ops.image.rgb_to_hsv(x), IMAGE),
    "rms_normalization": lambda x: ops.rms_normalization(x, constant(6)),
    "roll": lambda x: ops.roll(x, 1, axis=1),
    "rot90": lambda x: ops.rot90(x, axes=(1, 2)),
    "saturate_cast": lambda x: ops.saturate_cast(x, "float32"),
    "scale_and_translate": (
        lambda x: ops.image.scale_and_translate(
            x, (*x.shape[:1], 4, 4, 3), np.array([0.7, 0.7]), np.array([0.1, 0.2]), (1, 2), "linear"
        ),
        IMAGE,
    ),
    "scatter": lambda x: ops.scatter(np.array([[0], [2]]), ops.transpose(x, (1, 0, 2))[:2], (3, ops.shape(x)[0], 6)),
    "scatter_update": lambda x: ops.scatter_update(x, [[0, 0, 0]], np.ones(1)),
    "segment_max": lambda x: ops.segment_max(ops.transpose(x[0]), np.array([0, 0, 1, 1, 2, 2]), 3),
    "segment_min": lambda x: ops.segment_min(ops.transpose(x, (1, 0, 2)), np.array([0, 0, 1, 1]), 2),
    "segment_prod": lambda x: ops.segment_prod(ops.transpose(x, (1, 0, 2)), np.array([0, 0, 1, 1]), 2),
    "segment_sum": lambda x: ops.segment_sum(ops.transpose(x, (1, 0, 2)), np.array([0, 0, 1, 1]), 2),
    "diag": lambda x: ops.diag(ops.reshape(x, (-1,))),
    "diagflat": lambda x: ops.diagflat(x),
    "corrcoef": lambda x: ops.corrcoef(ops.reshape(x, (-1, 6))),
    "correlate": lambda x: ops.correlate(ops.reshape(x, (-1,)), constant(3)),
    "vdot": lambda x: ops.vdot(x, 2.0 * x),
    "lstsq": lambda x: ops.lstsq(ops.reshape(x, (4, -1)), constant(4, 2)),
    "select": lambda x: ops.select([x > 0.5, x > 0.3], [2.0 * x, 3.0 * x], 0.0),
    "separable_conv": (lambda x: ops.separable_conv(x, constant(2, 2, 3, 2), constant(1, 1, 6, 4)), IMAGE),
    "slice": lambda x: ops.slice(x, (0, 1, 0), (ops.shape(x)[0], 2, 6)),
    "slogdet": lambda x: ops.slogdet(_matrix(x))[1],
    "sobel_edges": (lambda x: ops.image.sobel_edges(x), IMAGE),
    "solve": lambda x: ops.solve(_matrix(x), ops.transpose(x, (0, 2, 1))),
    "solve_triangular": lambda x: ops.solve_triangular(
        ops.cholesky(_matrix(x)), ops.transpose(x, (0, 2, 1)), lower=True
    ),
    "space_to_depth": (lambda x: ops.space_to_depth(x, 2), IMAGE),
    "sparse_categorical_crossentropy": lambda x: ops.sparse_categorical_crossentropy(
        ops.zeros_like(x[..., 0], dtype="int32"), x
    ),
    "split": lambda x: ops.split(x, 2, axis=1),
    "squeeze": lambda x: ops.squeeze(x[:, :1], 1),
    "ssim": (lambda x: ops.image.ssim(x, x * x, 1.0, filter_size=3), IMAGE),
    "stack": lambda x: ops.stack([x, 2.0 * x], axis=1),
    "stft": (lambda x: ops.stft(x, 8, 4, 8), (32,)),
    "istft": (lambda x: ops.istft((x, 2.0 * x), 8, 4, 8), (6, 5)),
    "svd": lambda x: ops.svd(x, compute_uv=False),
    "swapaxes": lambda x: ops.swapaxes(x, 1, 2),
    "switch": lambda x: ops.switch(np.array(0), [lambda v: v * 2.0, lambda v: v], x),
    "scan": lambda x: ops.scan(lambda carry, v: (carry + v, carry), x[:, 0], ops.transpose(x, (1, 0, 2)))[1],
    "take": lambda x: ops.take(x, [0, 2], axis=1),
    "take_along_axis": lambda x: ops.take_along_axis(x, np.zeros((1, 1, 6), "int32"), axis=1),
    "tensordot": lambda x: ops.tensordot(x, constant(6, 3), axes=1),
    "threshold": lambda x: ops.threshold(x, 0.5, 0.1),
    "tile": lambda x: ops.tile(x, (1, 2, 1)),
    "top_k": lambda x: ops.top_k(x, 2)[0],
    "trace": lambda x: ops.trace(x, axis1=1, axis2=2),
    "transpose": lambda x: ops.transpose(x, (0, 2, 1)),
    "trapezoid": lambda x: ops.trapezoid(x, axis=1),
    "tril": lambda x: ops.tril(x),
    "triu": lambda x: ops.triu(x),
    "unfold": (lambda x: ops.unfold(x, 2), (3, 4, 4)),
    "unstack": lambda x: ops.unstack(x, axis=1),
    "vander": lambda x: ops.vander(ops.reshape(x, (-1,)), 3),
    "vectorized_map": lambda x: ops.vectorized_map(lambda v: v * 2.0, x),
    "vsplit": lambda x: ops.vsplit(ops.transpose(x, (1, 0, 2)), 2),
    "vstack": lambda x: ops.vstack([x, 2.0 * x]),
    "where": lambda x: ops.where(x > 0.5, x, 2.0 * x),
    "while_loop": lambda x: ops.while_loop(lambda v: ops.max(v) < 10.0, lambda v: (v * 2.0,), (x,)),
}
SPECIAL |= {name: lambda x, name=name: getattr(ops, name)(x) for name in PLAIN.split()}
SPECIAL |= {name: lambda x, name=name: getattr(ops, name)(x, axis=1) for name in AXIS.split()}
SPECIAL |= {name: lambda x, name=name: getattr(ops, name)(x, constant(6)) for name in BINARY.split()}
CASES = {name: case if isinstance(case, tuple) else (case, SHAPE) for name, case in SPECIAL.items()}


# What lrp.epsilon says to those that it does not explain.
REFUSED = {
    name: reason
    for reason, names in {
        "kxai has no rule for this operation": """
            binary_crossentropy categorical_crossentropy cdist cholesky cholesky_inverse cumprod det eigh inv logdet
            nancumprod nanprod segment_prod corrcoef lstsq nanstd nanvar pinv prod psnr qr
            rgb_to_hsv slogdet solve solve_triangular sparse_categorical_crossentropy ssim svd vander""",
        "which calls a Python function that cannot be looked into": """
            cond fori_loop map scan switch vectorized_map while_loop""",
        "a softmax that does not weigh values": "softmax log_softmax",
        "a matrix product of two tensors": "dot_product_attention vdot",
        "mixes the samples of a batch": "correlate map_coordinates segment_max diag diagflat",
    }.items()
    for name in names.split()
}

# Operations without a case, and why.
EXEMPT = {
    name: reason
    for reason, names in {
        "it makes a constant, or takes no tensor that is explained": """
            arange array bartlett blackman custom_gradient dtype empty eye full geomspace hamming hanning identity jvp
            kaiser linspace logspace is_tensor convert_to_numpy ndim ones shape size tri zeros vectorize meshgrid
            unravel_index""",
        "its result has no derivative": """
            all allclose any argmax argmin argpartition argsort bincount bitwise_and bitwise_invert bitwise_left_shift
            bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil count_nonzero ctc_decode digitize empty_like
            equal floor floor_divide full_like gcd greater greater_equal heaviside histogram in_top_k isclose
            isfinite isin
            isinf isnan isneginf isposinf isreal lcm left_shift less less_equal logical_and logical_not logical_or
            logical_xor matrix_rank nanargmax nanargmin nextafter nonzero not_equal ones_like round
            right_shift searchsorted sign signbit stop_gradient trunc unique zeros_like one_hot angle imag""",
        "TensorFlow has no derivative of it, or one that fails": """
            hsv_to_rgb sparsemax lu_factor slice_update""",
        "it moves values between samples": "flipud",
        "complex numbers": "polar view_as_complex view_as_real eig",
        "it reads the bits as another type": "view",
        "tests of expansions": "multi_hot",
        "it is random": "elastic_transform",
        "a loss over labels": "ctc_loss",
        "Keras fails: its ConvTranspose mixes up its arguments": "conv_transpose",
        "Keras does not know the shape of its result": "associative_scan",
    }.items()
    for name in names.split()
}


MODULES = (ops, ops.image, ops.linalg, ops.nn, ops.numpy)


@pytest.mark.parametrize("name", CASES)
def test_operation(name):
    if not any(name in vars(module) for module in MODULES):
        pytest.skip("newer than this version of Keras")
    if name == "inner" and release(keras.__version__) < (3, 15):
        pytest.skip("Keras before 3.15 states another shape for inner than it gives")
    function, shape = CASES[name]
    nodes, refusal = explained(Box(function), tf.constant(constant(2, *shape)))
    assert (REFUSED.get(name, "") in refusal) if name in REFUSED else not refusal
    opaque = [node.reason for node in nodes if node.kind is Kind.OPAQUE and "derivative" not in node.reason]
    closed = ("kxai has no rule for this operation", "which calls a Python function that cannot be looked into")
    assert bool(opaque) == (REFUSED.get(name) in closed)


def test_every_operation_has_a_case_or_a_reason():
    public = {name for module in MODULES for name, value in vars(module).items() if callable(value)}
    public -= {"Operation", "KerasTensor"}
    missing = {
        name
        for name in public
        if name not in CASES and name not in EXEMPT and not isinstance(getattr(ops, name, 0), type)
    }
    assert sorted(missing) == []
    assert sorted(set(CASES) & set(EXEMPT)) == []


def test_every_operation_class_has_a_place():
    def below(base):
        for heir in base.__subclasses__():
            yield heir
            yield from below(heir)

    shipped = {heir.__name__ for heir in below(keras.Operation) if heir.__module__.startswith("keras.src.ops")}
    shipped -= {"Function", "SegmentReduction"}  # a model, and a base class
    # Older versions have operations without an input.
    shipped -= {"Bartlett", "Blackman", "Hamming", "Hanning", "Kaiser"}
    assert sorted(shipped - set(OPS) - set(OP_EXPANSIONS) - set(CLOSED)) == []
    assert set(CLOSED) > HIGHER_ORDER
    assert not set(OPS) & set(CLOSED)


SAME = dict.fromkeys(
    """Identity Dropout GaussianDropout GaussianNoise AlphaDropout ActivityRegularization BatchNormalization
    LayerNormalization RMSNormalization UnitNormalization Normalization LeakyReLU PReLU ELU ReLU Softmax Flatten
    GlobalAveragePooling1D GlobalMaxPooling1D SpatialDropout1D ZeroPadding1D UpSampling1D MaxPooling1D AveragePooling1D
    Masking""".split(),
    SHAPE,
)
SAME |= dict.fromkeys(
    """SpatialDropout2D GlobalAveragePooling2D GlobalMaxPooling2D MaxPooling2D AveragePooling2D UpSampling2D
    ZeroPadding2D AugMix CutMix MixUp RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter
    RandomElasticTransform
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
    RandomPosterization RandomSharpness RandomShear AutoContrast
    Cropping2D""".split(),
    IMAGE,
)
SAME |= dict.fromkeys(
    """SpatialDropout3D GlobalAveragePooling3D GlobalMaxPooling3D MaxPooling3D AveragePooling3D UpSampling3D
    ZeroPadding3D Cropping3D""".split(),
    (4, 4, 4, 2),
)
ARGUMENTS = {
    "Activation": (("gelu",), SHAPE),
    "AdaptiveAveragePooling1D": ((3,), SHAPE),
    "AdaptiveAveragePooling2D": ((3,), IMAGE),
    "AdaptiveAveragePooling3D": ((2,), (4, 4, 4, 2)),
    "AdaptiveMaxPooling1D": ((3,), SHAPE),
    "AdaptiveMaxPooling2D": ((3,), IMAGE),
    "AdaptiveMaxPooling3D": ((2,), (4, 4, 4, 2)),
    "CenterCrop": ((4, 4), IMAGE),
    "Conv1D": ((3, 2), SHAPE),
    "Conv1DTranspose": ((3, 2), SHAPE),
    "Conv2D": ((3, 2), IMAGE),
    "Conv2DTranspose": ((3, 2), IMAGE),
    "Conv3D": ((3, 2), (4, 4, 4, 2)),
    "Conv3DTranspose": ((3, 2), (4, 4, 4, 2)),
    "Cropping1D": ((1,), SHAPE),
    "Dense": ((3,), SHAPE),
    "DepthwiseConv1D": ((2,), SHAPE),
    "DepthwiseConv2D": ((2,), IMAGE),
    "EinsumDense": (("bij,jk->bik", (4, 5)), SHAPE),
    "GroupNormalization": ((2,), SHAPE),
    "Lambda": ((lambda x: ops.tanh(x),), SHAPE),
    "MelSpectrogram": ((32, 16, None, "hann", 100, 8), (64,)),
    "Permute": (((2, 1),), SHAPE),
    "Pipeline": (([L.Rescaling(0.5), L.ReLU()],), IMAGE),
    "RandomContrast": ((0.1,), IMAGE),
    "RandomCrop": ((4, 4), IMAGE),
    "RandomRotation": ((0.1,), IMAGE),
    "RandomSaturation": ((0.1,), IMAGE),
    "RandomTranslation": ((0.1, 0.1), IMAGE),
    "RandomZoom": ((0.1,), IMAGE),
    "Rescaling": ((0.5, 1.0), SHAPE),
    "RepeatVector": ((2,), (6,)),
    "Reshape": (((24,),), SHAPE),
    "Resizing": ((4, 4), IMAGE),
    "STFTSpectrogram": (("log", 16, 8, 16), (64, 1)),
    "SeparableConv1D": ((3, 2), SHAPE),
    "SeparableConv2D": ((3, 2), IMAGE),
    "Solarization": ((1.0, 1.0), IMAGE),
    "SpectralNormalization": ((L.Dense(3, dtype="float64"),), SHAPE),
    "TimeDistributed": ((L.Dense(3, dtype="float64"),), SHAPE),
}
FIRST = dict.fromkeys(  # their first argument
    """Dropout GaussianDropout GaussianNoise AlphaDropout SpatialDropout1D SpatialDropout2D SpatialDropout3D
    RandomBrightness RandomColorDegeneration RandomHue RandomSharpness""".split(),
    (0.1,),
)
FIRST |= dict.fromkeys("AveragePooling1D AveragePooling2D AveragePooling3D".split(), (2,)) | {
    "RandomPosterization": (4,)
}
ARGUMENTS |= {name: (FIRST.get(name, ()), shape) for name, shape in SAME.items()}
# They know no double precision.
SINGLE = "AdaptiveAveragePooling3D AdaptiveMaxPooling3D MaxPooling3D AveragePooling3D Pipeline MelSpectrogram".split()
SEVERAL = ("Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract")
LOOKUPS = {"Embedding": (5, 3), "ReversibleEmbedding": (5, 3), "CategoryEncoding": (5, "one_hot")}

LAYERS_REFUSED = {
    "AutoContrast": "cannot be opened|no rule",
    "Dot": "a matrix product of two tensors",
    "MelSpectrogram": "no rule",
    "Softmax": "a softmax that does not weigh values",
}
LAYERS_EXEMPT = {
    name: reason
    for reason, names in {
        "it is a base class, or no layer": "InputLayer InputSpec Layer Wrapper",
        "tests of recurrent layers": """
            RNN SimpleRNN SimpleRNNCell GRU GRUCell LSTM LSTMCell StackedRNNCells Bidirectional ConvLSTM1D ConvLSTM2D
            ConvLSTM3D""",
        "tests of attention": "AdditiveAttention Attention GroupQueryAttention MultiHeadAttention",
        "its result has no derivative": """
            Discretization Hashing HashedCrossing IntegerLookup StringLookup TextVectorization MaxNumBoundingBoxes""",
        "code of another framework, or a saved graph": "TFSMLayer FlaxLayer JaxLayer TorchModuleWrapper",
        "Keras cannot build a functional model with it": "Equalization",
        "its derivative is zero": "ContrastLimitedAdaptiveHistogramEqualization",
    }.items()
    for name in names.split()
}


def _layer_model(name):
    if name in SEVERAL:
        x = keras.Input(SHAPE, dtype="float64")
        layer = L.Dot(axes=2, dtype="float64") if name == "Dot" else getattr(L, name)(dtype="float64")
        return keras.Model(x, layer([x, ops.exp(x)]))
    if name in LOOKUPS:
        x = keras.Input((4,), dtype="int32")
        first, second = LOOKUPS[name]
        mode = {"output_mode": second} if name == "CategoryEncoding" else {"output_dim": second}
        return keras.Model(x, getattr(L, name)(first, **mode)(x))
    arguments, shape = ARGUMENTS[name]
    dtype = "float32" if name in SINGLE else "float64"
    options = {} if name == "Pipeline" else {"dtype": dtype}
    x = keras.Input(shape, dtype=dtype)
    return keras.Model(x, getattr(L, name)(*arguments, **options)(x))


@pytest.mark.parametrize("name", [*ARGUMENTS, *SEVERAL, *LOOKUPS])
def test_layer(name):
    if name not in vars(L):
        pytest.skip("newer than this version of Keras")
    model = _layer_model(name)
    model.set_weights([constant(*w.shape) for w in model.get_weights()])
    shape = model.input.shape[1:]
    inputs = constant(2, *shape) if name not in LOOKUPS else np.random.default_rng(0).integers(1, 5, (2, *shape))
    nodes, refusal = explained(model, tf.constant(inputs, model.input.dtype))
    if name in LAYERS_REFUSED:
        assert re.search(LAYERS_REFUSED[name], refusal)
    else:
        assert refusal == ""
        assert not [n.reason for n in nodes if n.kind is Kind.OPAQUE and "derivative" not in n.reason]


def test_every_layer_has_a_case_or_a_reason():
    shipped = {name for name, value in vars(L).items() if isinstance(value, type)}
    renamed = {name for name in shipped if getattr(L, name).__name__ != name}  # second names of the same class
    cases = {*ARGUMENTS, *SEVERAL, *LOOKUPS}
    assert sorted(shipped - renamed - cases - set(LAYERS_EXEMPT)) == []
    assert not cases & set(LAYERS_EXEMPT)


def test_losses_of_a_layer_are_left_out_and_leave_no_trace():
    class Penalty(L.Layer):
        def call(self, x):
            self.add_loss(ops.sum(x))
            return ops.relu(x)

    layer = Penalty()
    x = keras.Input((4,))
    model = keras.Model(x, L.Dense(2)(layer(x)))
    model.losses.clear()
    before = [list(inner._losses) for inner in model.layers]
    relevance = kxai.explain(model, np.ones((2, 4), "float32"), "lrp.epsilon").relevance
    assert np.abs(relevance).max() > 0
    assert [list(inner._losses) for inner in model.layers] == before
    layer(tf.ones((1, 4)))  # outside of a recording losses are collected as ever
    assert len(layer.losses) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - ops.mean(x, axis=0, keepdims=True),
        lambda x: x + ops.max(x),
        lambda x: x - ops.sum(x, axis=0),
    ],
)
def test_relevance_stays_in_its_sample(function):
    x = keras.Input((4,))
    model = keras.Model(x, L.Dense(2)(function(L.Dense(3)(x))))
    with pytest.raises(RuleError, match=r"(?s)mixes the samples of a batch.*Received: (mean|max|sum), of shape"):
        kxai.plan(model, "lrp.epsilon")
    assert kxai.explain(model, np.ones((2, 4), "float32"), "gradient").relevance.shape == (2, 4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.flip(x, axis=0),
        pytest.param(
            lambda x: ops.flipud(x),
            marks=pytest.mark.skipif("flipud" not in vars(ops), reason="newer than this version of Keras"),
        ),
        lambda x: ops.roll(x, 1, axis=0),
        lambda x: ops.cumsum(x, axis=0),
        lambda x: ops.sort(x, axis=0),
        lambda x: ops.normalize(x, axis=0),
        lambda x: L.UnitNormalization(axis=0)(x),
        lambda x: ops.matmul(ops.softmax(x, axis=0), np.ones((3, 3), "float32")),
        lambda x: ops.matmul(ops.matmul(x, ops.transpose(x)), x),
        lambda x: ops.transpose(ops.flip(ops.transpose(x), axis=-1)),
        lambda x: x[::-1],
        lambda x: x[..., ::-1, :],
        lambda x: ops.reshape(ops.transpose(x), (-1, 3)),
        lambda x: ops.transpose(tf.cumsum(tf.transpose(x), 1)),
        lambda x: x + x[:1],
        lambda x: x + ops.take(x, [0], axis=0),
    ],
)
def test_relevance_stays_in_its_sample_where_the_batch_axis_stays(function):
    class Mixing(L.Layer):
        def call(self, x):
            return function(x)

    x = keras.Input((4,))
    model = keras.Model(x, L.Dense(2)(Mixing()(L.Dense(3)(x))))
    with pytest.raises(RuleError, match=r"(?s)mixes the samples of a batch.*Fix: let it work along the other axes"):
        kxai.plan(model, "lrp.attn")
    assert kxai.explain(model, np.ones((2, 4), "float32"), "gradient").relevance.shape == (2, 4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.flip(x, axis=1),
        lambda x: ops.transpose(ops.roll(ops.transpose(x), 1, axis=0)),
        lambda x: ops.cumsum(x, axis=-1),
        lambda x: x[:, ::-1],
        lambda x: x[..., 1:][None][0],
        lambda x: ops.transpose(ops.reshape(ops.transpose(x), (3, -1))),
        lambda x: ops.split(ops.concatenate([x, 2.0 * x], axis=0), 2, axis=0)[1],
        lambda x: ops.reshape(ops.transpose(L.Reshape((1, 3))(x), (1, 0, 2)), (-1, 3)),
    ],
)
def test_samples_that_stay_apart(function):
    """The relevance of a sample is the same whatever else is in the batch."""

    class Apart(L.Layer):
        def call(self, x):
            return function(x)

    x = keras.Input((4,))
    model = keras.Model(x, L.Dense(2)(Apart()(L.Dense(3)(x))))
    analyzer = kxai.LRP(model, "epsilon")
    values = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    alone = np.concatenate([analyzer.explain(value[None], 0).relevance for value in values])
    np.testing.assert_allclose(analyzer.explain(values, 0).relevance, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("key", [slice(None, None, -1), slice(0, 1), Ellipsis, None])
def test_single_keys(key):
    nodes, refusal = explained(Box(lambda x: ops.transpose(x, (1, 0, 2))[key]), tf.constant(constant(2, *SHAPE)))
    assert [node.op for node in nodes][-1] == "get_item"
    assert refusal == ""


def test_functions_of_two_tensors_are_refused():
    for function in (lambda x: ops.power(x, ops.exp(x)), lambda x: L.Multiply()([x, x, ops.exp(x)])):
        x = keras.Input((4,))
        with pytest.raises(
            RuleError, match=r"(?s)has no rule: (it is a function of two|one of several).*plain gradient"
        ):
            kxai.plan(keras.Model(x, function(x)), "lrp.epsilon")


@pytest.mark.skipif(release(keras.__version__) < (3, 14), reason="Keras before 3.14 does not end associative_scan")
def test_layers_whose_output_nobody_knows_are_refused():
    box = Box(lambda x: ops.associative_scan(lambda a, b: a + b, x, axis=1))
    with pytest.raises(
        ModelError, match=r"(?s)'box' cannot be opened \(it uses keras.ops.associative_scan.*Fix: write"
    ):
        trace(box, input_specs(box, np.ones((2, *SHAPE))))
