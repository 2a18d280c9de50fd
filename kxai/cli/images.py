"""From files to a batch that a model takes: decoded, resized, preprocessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kxai import files
from kxai.errors import InputError, LoadError
from kxai.files import existing
from kxai.preprocessing import PREPROCESS, preprocessing

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PREPROCESS", "input_size", "preprocessing", "read_arrays", "read_images"]


def input_size(shape: object) -> tuple[int | None, int | None, int]:
    """Checks that a model takes one image.

    Args:
        shape: the model's ``input_shape``: ``(None, height, width, 1|3)``, channels last; height and width may be None.

    Returns:
        Height, width, channels.

    Raises:
        InputError: the model takes something else.

    Example:
        >>> input_size((None, 224, 224, 3))
        (224, 224, 3)
    """
    if isinstance(shape, tuple) and len(shape) == 4 and shape[-1] in (1, 3):
        return shape[1], shape[2], shape[3]
    raise InputError(
        "The model does not take images.",
        expected="one input (None, height, width, 1 or 3), channels last",
        received=str(shape),
        fix="give its inputs as .npy or .npz files.",
    )


def read_images(paths: Sequence[str], size: tuple[int | None, int | None, int], crop: bool = False) -> np.ndarray:
    """Decodes images and resizes them to the model's input (bilinear, smoothed when reduced).

    Args:
        paths: the files, at least one.
        size: height, width, channels; a height or width of None keeps the image's own, which must then agree.
        crop: cuts the largest centred part of the model's aspect ratio first; otherwise the image is distorted.

    Returns:
        uint8 array ``(batch, height, width, channels)``.

    Raises:
        LoadError: a file is missing or is no image.
        InputError: the images differ in size and the model does not fix it.
    """
    images = [_read(path, size, crop) for path in paths]
    if len({image.shape for image in images}) > 1:
        raise InputError(
            "The images differ in size, and the model accepts any size.",
            expected="images of one size",
            received=", ".join(f"{path} {image.shape[:2]}" for path, image in zip(paths, images, strict=True)),
            fix="explain them in separate runs, or resize them first.",
        )
    return np.stack(images)


def _read(path: str, size: tuple[int | None, int | None, int], crop: bool) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = existing(path, "image")
    height, width, channels = size
    try:
        with Image.open(file) as opened:
            # A camera's orientation flag is honoured, and transparency stands before white.
            image = _opaque(ImageOps.exif_transpose(opened)).convert("RGB" if channels == 3 else "L")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise LoadError(
            f"{file} is no image that can be read.",
            expected="PNG, JPEG or another format that Pillow reads, complete",
            received=f"{file.stat().st_size} bytes; {error}",
        ) from error
    goal = (width or image.width, height or image.height)
    if crop:
        image = ImageOps.fit(image, goal, Image.Resampling.BILINEAR)
    elif image.size != goal:
        image = image.resize(goal, Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(goal[1], goal[0], channels)


def _opaque(image: Image.Image) -> Image.Image:
    from PIL import Image

    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def read_arrays(path: str) -> np.ndarray | dict[str, np.ndarray]:
    """Reads a batch from an array file, for models that do not take images.

    Args:
        path: a ``.npy`` file; or an ``.npz`` file with one array, or with one per input under the inputs' names.

    Returns:
        The array, or a dict of arrays, as they are in the file.

    Raises:
        LoadError: the file is missing, damaged, or would have to be unpickled.
    """
    file = existing(path, "array file")
    try:
        with open(file, "rb") as stream:
            if stream.read(1) != b"P":  # as zip archives begin
                stream.seek(0)
                return files.read_array(stream, file.stat().st_size)
        arrays = files.read_arrays(file)
    except files.UNREADABLE as error:
        raise LoadError(
            f"{file} holds no arrays that can be read.",
            expected="a complete .npy or .npz file of numbers",
            received=f"{file.stat().st_size} bytes; {error}",
        ) from error
    if not arrays:
        raise LoadError(f"{file} is empty.", expected="at least one array", received="none")
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays
