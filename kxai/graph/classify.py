"""The one table: which Keras layer, activation or operation is of which kind.

A layer class listed here stays one node (or the few nodes of its entry in ``expand.py``), provided that the class
itself defines ``call``; a subclass with its own ``call`` is opened like any custom layer.
"""

from __future__ import annotations

import re
from typing import Any

import keras

from kxai import backend
from kxai.graph.graph import Kind


def layers_named(names: str) -> tuple[Any, ...]:
    """Layer classes by name; a name that this Keras version lacks is left out."""
    return tuple(getattr(keras.layers, name) for name in names.split() if name in vars(keras.layers))


def _ranks(*stems: str) -> str:
    return " ".join(f"{stem}{rank}D" for stem in stems for rank in (1, 2, 3))


# Layers that return their input at inference.
IDENTITIES: frozenset[type] = frozenset(
    layers_named(
        "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout GaussianNoise AlphaDropout "
        "ActivityRegularization Identity RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast "
        "RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert "
        "RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear "
        "RandomTranslation RandomZoom AugMix CutMix MixUp RandAugment"
    )
)

# Layers that stay one node.
LAYERS: dict[type, tuple[str, Kind]] = {
    layer: (op, kind)
    for names, op, kind in (
        ("Flatten", "flatten", Kind.ROUTE),
        ("Reshape", "reshape", Kind.ROUTE),
        ("Permute", "transpose", Kind.ROUTE),
        ("RepeatVector", "repeat", Kind.ROUTE),
        ("Concatenate", "concatenate", Kind.ROUTE),
        (_ranks("ZeroPadding"), "zero_pad", Kind.ROUTE),
        (_ranks("Cropping") + " CenterCrop", "crop", Kind.ROUTE),
        ("UpSampling1D UpSampling3D", "up_sample", Kind.ROUTE),
        (_ranks("MaxPooling", "AdaptiveMaxPooling"), "max_pool", Kind.MAX),
        (_ranks("GlobalMaxPooling"), "global_max_pool", Kind.MAX),
        ("Maximum", "maximum", Kind.MAX),
        ("Minimum", "minimum", Kind.MAX),
        ("Add", "add", Kind.SUM),
        ("Subtract", "subtract", Kind.SUM),
        ("Average", "average", Kind.SUM),
        (_ranks("AveragePooling", "AdaptiveAveragePooling"), "average_pool", Kind.SUM),
        (_ranks("GlobalAveragePooling"), "global_average_pool", Kind.SUM),
        ("Resizing RandomCrop", "resize", Kind.SUM),
        ("Multiply", "multiply", Kind.PRODUCT),
        ("Normalization", "normalization", Kind.SCALE),
        ("Rescaling", "rescaling", Kind.SCALE),
        ("LeakyReLU", "leaky_relu", Kind.ELEMENTWISE),
        ("Solarization", "solarization", Kind.ELEMENTWISE),
        ("PReLU", "prelu", Kind.ELEMENTWISE),
        ("ELU", "elu", Kind.ELEMENTWISE),
        ("Softmax", "softmax", Kind.SOFTMAX),
        ("RMSNormalization", "rms_norm", Kind.NORM),
        ("UnitNormalization", "unit_norm", Kind.NORM),
    )
    for layer in layers_named(names)
}

_NO_ACTIVATIONS = ("get", "serialize", "deserialize", "glu", "linear", "swish", "hard_swish")
# Activation functions known to act on each element alone (softmax and its kin excepted).
ACTIVATIONS: dict[Any, tuple[str, Kind]] = {
    function: (name, Kind.SOFTMAX if name in ("softmax", "log_softmax", "sparsemax") else Kind.ELEMENTWISE)
    for function, name in (
        *((function, name) for name, function in vars(keras.activations).items() if name not in _NO_ACTIVATIONS),
        *backend.ACTIVATIONS.items(),
    )
    if callable(function)
}

_OPS = {
    Kind.ROUTE: """
        Reshape Ravel Transpose Squeeze ExpandDims Concatenate Stack Hstack Vstack Dstack Pad GetItem Slice Split Hsplit
        Vsplit Dsplit ArraySplit Unstack Take TakeAlongAxis Flip Fliplr Flipud Rot90 Roll Repeat Tile BroadcastTo
        Swapaxes Moveaxis Cast SaturateCast Copy ConvertToTensor Diagonal Tril Triu DepthToSpace SpaceToDepth
        Sort SliceUpdate Scatter ScatterUpdate Unfold ExtractPatches ExtractPatches3D PadImages CropImages View Append
        Rearrange Diag Diagflat ExtractSequences Meshgrid Select TopK Real Conj Conjugate""",
    Kind.MAX: """
        Max Amax Min Amin Maximum Minimum Fmax Fmin MaxPool AdaptiveMaxPool Median Quantile Percentile
        Nanmax Nanmin Nanmedian Nanquantile Nanpercentile SegmentMax SegmentMin""",
    Kind.SUM: """
        Add Subtract Sum Mean Average AveragePool AdaptiveAveragePool Cumsum Negative Trace Diff Resize Fold
        RGBToGrayscale Nansum Nanmean Nancumsum Trapezoid SegmentSum GaussianBlur AffineTransform
        PerspectiveTransform MapCoordinates ScaleAndTranslate SobelEdges""",
    Kind.PRODUCT: "Multiply Divide TrueDivide DivideNoNan",
    Kind.BILINEAR: "Matmul Dot Einsum Tensordot Vdot Inner Outer Kron Cross Correlate",
    Kind.AFFINE: "Conv DepthwiseConv ConvTranspose",
    Kind.SCALE: "BatchNorm Deg2rad Rad2deg",
    Kind.SOFTMAX: "Softmax LogSoftmax Sparsemax",
    Kind.NORM: "RMSNorm Normalize",
    Kind.LOOKUP: "OneHot",
    Kind.ELEMENTWISE: """
        ReLU Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus LogSigmoid
        LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold Mish Absolute Abs
        Fabs Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cbrt Clip Cos Cosh Exp Exp2 Expm1 Log Log10 Log1p Log2
        Power Reciprocal Sin Sinc Sinh Sqrt Rsqrt Square Tan Tanh Erf Erfc StopGradient Sign Round Floor Ceil
        NanToNum ZerosLike OnesLike FullLike EmptyLike Trunc Heaviside FloorDivide Erfinv I0 Arctan2 Hypot Logaddexp
        Logaddexp2 Mod Fmod Ldexp""",
}
# Operations carry no public class; their class names are unique among operations (layers are looked up by class above).
OPS: dict[str, Kind] = {name: kind for kind, names in _OPS.items() for name in names.split()}

# Operations that stay closed: what they do -> their class names. Gradient methods run through those of the first group.
_CLOSED = {
    "kxai has no rule for this operation": """
        Prod Nanprod Cumprod Nancumprod SegmentProd Nextafter Angle CDist Corrcoef Vander Cholesky CholeskyInverse Det
        Eig Eigh Inv Logdet LuFactor Lstsq Pinv Qr SVD Slogdet Nanstd Nanvar Solve SolveTriangular JVP RGBToHSV
        HSVToRGB SSIM PSNR
        BinaryCrossentropy CategoricalCrossentropy SparseCategoricalCrossentropy CTCLoss ElasticTransform""",
    "it computes with complex numbers": """
        FFT FFT2 IFFT2 RFFT IRFFT STFT ISTFT Imag Polar ViewAsComplex ViewAsReal""",
    "it calls a Python function that cannot be looked into": """
        AssociativeScan Cond ForiLoop Map Scan Switch VectorizedMap WhileLoop""",
    "its result has no derivative": """
        All AllClose Any Arange Argmax Argmin Argpartition Argsort Array Bincount BitwiseAnd BitwiseInvert
        BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor CTCDecode CountNonzero Digitize Equal Full
        Gcd Geomspace Greater GreaterEqual Histogram InTopK IsIn Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal
        Lcm LeftShift Less LessEqual Linspace LogicalAnd LogicalNot LogicalOr LogicalXor Logspace MatrixRank
        Nanargmax Nanargmin Ndim Nonzero NotEqual RightShift SearchSorted Signbit Size Unique UnravelIndex""",
}
CLOSED: dict[str, str] = {name: reason for reason, names in _CLOSED.items() for name in names.split()}
# Their Python functions may hold symbolic tensors of the layer around them, which then has to stay closed with them.
HIGHER_ORDER = frozenset(name for name, reason in CLOSED.items() if "Python function" in reason)

_RENAMED = {"ReLU": "relu", "Amax": "max", "Amin": "min", "CDist": "cdist"}
_WORDS = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def own_class(layer: Any, table: Any) -> Any:
    """The class of ``table`` that ``layer`` is an instance of and whose ``call`` it uses unchanged."""
    for base in type(layer).__mro__:
        if base in table:
            found: Any = base
            return base if type(layer).call is found.call else None
    return None


def op_name(operation: Any) -> str:
    """Canonical lower-case name of an operation, such as "hard_sigmoid" for ``HardSigmoid``."""
    name = type(operation).__name__
    return _RENAMED.get(name) or _WORDS.sub("_", name).lower()


# Sums with weights that their other operands determine.
_LINEAR_IN_FIRST = frozenset(
    "trapezoid affine_transform perspective_transform map_coordinates scale_and_translate".split()
)


def refine(op: str, kind: Kind, active: tuple[bool, ...]) -> Kind:
    """The kind of a call once it is known which of its operands carry relevance.

    A sum or product with a constant maps each input to one output; a function of two elements (a power) has no rule.
    """
    if any(active[1:]) and op in _LINEAR_IN_FIRST:
        return Kind.OPAQUE
    if sum(active) > 1:
        return Kind.OPAQUE if kind in (Kind.ELEMENTWISE, Kind.AFFINE) else kind
    if len(active) == 0:
        return kind
    if kind in (Kind.SUM, Kind.PRODUCT) and op in ("add", "subtract", "multiply", "negative"):
        return Kind.SCALE
    if kind is Kind.PRODUCT:
        return Kind.SCALE if active[0] else Kind.ELEMENTWISE
    if op in ("maximum", "minimum", "fmax", "fmin"):
        return Kind.ELEMENTWISE
    return kind
